"""Every option of convert_network.py is obeyed."""

from option_rows import image_weights, names, obeyed, outcome, rows

TABLE = [
    *rows(
        'convert_network',
        ('--source={generator}', '--dest={folder}/x.pkl'),
        ('--source', '{generator}', '{other}', image_weights),
        ('--dest', '{folder}/x.pkl', '{folder}/x.safetensors', names),
        (
            '--force',
            ('&&', '--source={generator}', '--dest={folder}/x.pkl'),
            ('&&', '--source={generator}', '--dest={folder}/x.pkl', '--force'),
            outcome,
        ),
    )
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
