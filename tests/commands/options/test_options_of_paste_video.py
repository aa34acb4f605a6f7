"""Every option of paste_video.py is obeyed."""

from option_rows import content, largest, names, obeyed, outcome, pictures, rows, said

PASTED_VIDEO = ('--dest={folder}/x.mp4',)
TABLE = [
    *rows(
        'paste_video',
        ('--data={pasted}', '--dest={out}', '--device=cpu'),
        ('--data', '{pasted}', '{pasted_b}', pictures),
        ('--dest', '{out}', '{folder}/elsewhere', names),
        ('--crops', None, '{codes}', pictures),
        ('--clip', ('--data={pasted_two}',), ('--data={pasted_two}', '--clip=b'), outcome),
        ('--source', None, '{folder}/x.mp4', outcome),
        ('--beyond', ('--crops={many}',), ('--crops={many}', '--beyond=loop'), pictures),
        ('--mask', 'square', 'ellipse', pictures),
        ('--landmarks', None, '{landmarks_pasted}', pictures),
        ('--face-model', ('--mask=face',), ('--mask=face', '--face-model={generator}x'), said),
        ('--match', 'seam', 'none', pictures),
        ('--crf', PASTED_VIDEO, (*PASTED_VIDEO, '--crf=40'), content('*.mp4')),
        ('--sound', (*PASTED_VIDEO, '--sound'), (*PASTED_VIDEO, '--no-sound'), content('*.mp4')),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
        ('--network', None, '{other}', outcome),
        ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
        (
            '--trust-pickle',
            ('--network={refused}', '--force-network'),
            ('--network={refused}', '--force-network', '--trust-pickle'),
            outcome,
        ),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--batch', 8, 2, largest('rendered')),
        ('--memory', ('--batch=64',), ('--batch=64', '--memory=1M'), largest('rendered')),
    )
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
