"""Every option of embed_video.py is obeyed."""

from option_rows import clip_sizes, codes, names, obeyed, outcome, preparation, quality, rows

EMBED = (
    '--network={generator}', '--source={frames}', '--dest={folder}/x.zip', '--perceptual=none', '--steps=3', '--first-steps=4',
    '--device=cpu', '--min-frames=3', '--no-report',
)  # fmt: skip
REPORTED = ('--encoder={encoder}', '--report')
ENCODED = ('--encoder={encoder}',)
TABLE = [
    *rows(
        'embed_video',
        EMBED,
        ('--network', '{generator}', '{other}', codes),
        ('--memory', '70%', '1M', lambda run: len(run.rendered)),
        ('--source', '{frames}', '{video}', codes),
        ('--dest', '{folder}/x.zip', '{folder}/y.zip', names),
        ('--encoder', None, '{encoder}', codes),
        ('--refine', ENCODED, (*ENCODED, '--refine'), codes),
        ('--force-encoder', ('--encoder={foreign_encoder}',), ('--encoder={foreign_encoder}', '--force-encoder'), outcome),
        ('--report', REPORTED, ENCODED, names),
        ('--identity', REPORTED, (*REPORTED, '--identity=no'), quality('identity')),
        ('--identity-model', REPORTED, (*REPORTED, '--identity-model={generator}'), quality('identity')),
        ('--preview', ENCODED, (*ENCODED, '--preview'), names),
        ('--probe', ('--perceptual=alex',), ('--perceptual=alex', '--probe'), names),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
        ('--steps', 3, 5, codes),
        ('--first-steps', 4, 6, codes),
        ('--perceptual', ENCODED, (*ENCODED, '--perceptual=alex'), quality('psnr', 'lpips')),
        ('--lpips-weights', ('--perceptual=alex',), ('--perceptual=alex', '--lpips-weights={generator}'), outcome),
        ('--lambda-lpips', ('--perceptual=alex',), ('--perceptual=alex', '--lambda-lpips=0.1'), codes),
        ('--lambda-pixel', 2, 9, codes),
        ('--lambda-average', 1e-3, 1, codes),
        ('--lambda-layers', 1e-3, 1, codes),
        ('--smooth', 0.1, 5, codes),
        ('--stop', ('--steps=12', '--first-steps=12', '--stop=0'), ('--steps=12', '--first-steps=12', '--stop=0.9'), codes),
        ('--chunk', 16, 4, codes),
        ('--measure-every', ENCODED, (*ENCODED, '--measure-every=0'), quality('psnr')),
        ('--seed', ('--lambda-average=1',), ('--lambda-average=1', '--seed=1'), codes),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
        ('--gpus', ENCODED, (*ENCODED, '--gpus=0'), outcome),  # more than one is another process
        ('--shard', ENCODED, (*ENCODED, '--shard=2/2'), outcome),
        *preparation(clip_sizes, codes, *ENCODED),
    )
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
