"""Every option of report_video.py is obeyed."""

from option_rows import content, names, obeyed, outcome, rows

PAGE = content('page.html')
TABLE = rows(
    'report_video',
    (
        '--run={run}', '--dest={folder}/page.html', '--device=cpu', '--videos=16', '--depths=0,30', '--clip-seconds=0.2',
        '--clips=1', '--subject={still}',
    ),
    ('--run', '{run}', '{folder}', outcome),
    ('--dest', '{folder}/page.html', '{folder}/other.html', names),
    ('--network', '{snapshot}', '{early}', PAGE),
    ('--data', None, '{second}', outcome),
    ('--depths', '0,30', '0,31', PAGE),
    ('--videos', 16, 17, PAGE),
    ('--clips', 1, 2, PAGE),
    ('--clip-seconds', 0.2, 0.4, PAGE),
    ('--subject', None, ('--subject={codes}',), PAGE),
    ('--transfer', 'shrinkage', 'offset', PAGE),
    ('--encoder', None, '{generator}', outcome),
    (
        '--align',
        ('--subject={picture}', '--encoder={encoder}'),
        ('--subject={picture}', '--encoder={encoder}', '--align=ffhq'),
        PAGE,
    ),
    ('--image-network', None, '{other}', outcome),
    ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
    (
        '--trust-pickle',
        ('--image-network={refused}', '--force-image-network'),
        ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
        outcome,
    ),
    ('--device', 'cpu', 'nowhere', outcome),
)  # fmt: skip
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
