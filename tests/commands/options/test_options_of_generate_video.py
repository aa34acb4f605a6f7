"""Every option of generate_video.py is obeyed."""

from option_rows import content, largest, names, num_lines, obeyed, outcome, pictures, rows

PICTURE = ('--subject={picture}', '--encoder={encoder}')
NOISY = ('--image-network={noisy}', '--force-image-network')
TABLE = [
    *rows(
        'generate_video',
        ('--network={snapshot}', '--outdir={out}', '--seeds=3', '--frames=6', '--format=png', '--device=cpu'),
        ('--network', '{snapshot}', '{early}', pictures),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--seeds', 3, 4, pictures),
        ('--frames', 6, 7, names),
        ('--subject', None, '{still}', pictures),
        ('--align', PICTURE, (*PICTURE, '--align=ffhq'), pictures),
        ('--transfer', ('--subject={still}',), ('--subject={still}', '--transfer=offset'), pictures),
        (
            '--transfer-data',
            ('--subject={still}', '--transfer=regression', '--transfer-data={second}'),
            ('--subject={still}', '--transfer=regression', '--transfer-data={slow}'),
            pictures,
        ),
        ('--motion', None, '{codes}', pictures),
        ('--encoder', PICTURE, ('--subject={picture}', '--encoder={generator}'), outcome),
        ('--first-frame', None, '{still}', pictures),
        ('--continue', None, '{codes}', pictures),
        ('--first-frame-seed', None, 9, pictures),
        ('--loop', None, True, pictures),
        ('--transition', None, '9@2-4', pictures),
        ('--edit', None, '{direction}:2', pictures),
        ('--motion-scale', 1, 0.5, pictures),
        ('--trunc', 1, 0.5, pictures),
        ('--trunc-center', ('--trunc=0.5',), ('--trunc=0.5', '--trunc-center=generator'), pictures),
        ('--noise-mode', NOISY, (*NOISY, '--noise-mode=none'), pictures),
        ('--burn-in', 0, 3, pictures),
        ('--fps', None, 50, pictures),
        ('--speed', 1, 2, pictures),
        ('--audio', ('--format=mp4',), ('--format=mp4', '--audio={sound}'), content('*.mp4')),
        (
            '--react',
            ('--format=mp4', '--audio={sound}'),
            ('--format=mp4', '--audio={sound}', '--react=motion:9'),
            content('*.mp4'),
        ),
        ('--format', 'png', 'mp4', names),
        ('--size', None, '32x24', pictures),
        ('--pad', ('--size=32x16',), ('--size=32x16', '--pad=white'), pictures),
        ('--grid', ('--seeds=3,4', '--grid=2x1'), ('--seeds=3,4', '--grid=1x2'), pictures),
        ('--crf', ('--format=mp4',), ('--format=mp4', '--crf=40'), content('*.mp4')),
        ('--save-codes', None, True, names),
        ('--skip-existing', ('&&', '{again}'), ('&&', '{again}', '--skip-existing'), num_lines('generation.jsonl')),
        ('--image-network', None, '{other}', outcome),
        ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
        (
            '--trust-pickle',
            ('--image-network={refused}', '--force-image-network'),
            ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
            outcome,
        ),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--batch', 8, 2, largest('rendered')),
        ('--memory', ('--batch=64',), ('--batch=64', '--memory=1M'), largest('rendered')),
        ('--precision', 'auto', 'bf16', pictures),  # a processor without bfloat16 refuses it
        ('--gpus', None, '0', outcome),  # more than one is another process: tests/commands/test_generate_video.py
        ('--shard', ('--seeds=3,4', '--shard=1/2'), ('--seeds=3,4', '--shard=2/2'), names),
        ('--merge', None, '{folder}', outcome),
    ),
    *rows(
        'generate_video',
        ('--network={snapshot}', '--outdir={out}', '--seeds=3', '--format=png', '--device=cpu'),
        ('--seconds', 0.2, 0.4, names),
    ),
    *rows(
        'generate_video',
        ('--network={generator}', '--outdir={out}', '--seeds=3-6', '--keyframe-frames=3', '--format=png', '--device=cpu'),
        ('--keyframes', None, 2, names),
        ('--keyframe-frames', 3, 4, names),
        ('--easing', None, 'linear', pictures),
    ),
    *rows(
        'generate_video',
        ('--network={generator}', '--outdir={out}', '--seeds=3', '--device=cpu'),
        ('--stills', None, True, outcome),
    ),
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
