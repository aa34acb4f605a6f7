"""Every option of align_video.py is obeyed."""

from option_rows import content, names, obeyed, preparation, rows

PICTURES = content('*.png')
TABLE = rows(
    'align_video',
    ('--source={frames}', '--dest={out}', '--size=16', '--format=png', '--min-frames=3'),
    ('--source', '{frames}', '{video}', PICTURES),
    ('--dest', '{out}', '{folder}/elsewhere', names),
    ('--size', 16, 8, PICTURES),
    ('--format', 'png', 'mp4', names),
    *preparation(names, PICTURES),
)
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
