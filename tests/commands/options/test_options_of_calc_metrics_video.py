"""Every option of calc_metrics_video.py is obeyed."""

from option_rows import largest, names, obeyed, outcome, results, rows

LPIPS = ('--metrics=lpips_alex', '--pairs=order')
VIDEOS = ('--real={clips}', '--metrics=fvd3_8f', '--resolution=4')
TABLE = [
    *rows(
        'calc_metrics_video',
        ('--fake={fake}', '--real={real}', '--metrics=fvd6_8f', '--bootstrap=3', '--device=cpu'),
        ('--gpus', None, '0', outcome),  # more than one is another process
        ('--shard', ('--parts={folder}/p', '--shard=1/2'), ('--parts={folder}/p', '--shard=2/2'), names),
        ('--parts', None, '{folder}/nothing', outcome),  # what they come to: tests/metrics/test_frechet_of_clips.py
        ('--lpips-weights', LPIPS, (*LPIPS, '--lpips-weights={generator}'), outcome),
        ('--pairs', ('--metrics=psnr_8f',), ('--metrics=psnr_8f', '--pairs=order'), outcome),
        ('--protocol', None, 'common-metrics', results),
        ('--fake', '{fake}', '{fake_b}', results),
        ('--real', '{real}', '{fake_b}', results),
        ('--metrics', 'fvd6_8f', 'fvd6_9f', results),
        ('--list-metrics', None, True, lambda run: run.stdout[:1]),
        ('--detector', None, '{generator}', outcome),
        ('--fps', VIDEOS, (*VIDEOS, '--fps=10'), results),
        ('--resolution', None, 2, results),
        ('--real-clips', 'spread', 'random', results),
        ('--fake-clips', 'first', 'random', results),
        ('--seed', ('--real-clips=random',), ('--real-clips=random', '--seed=1'), results),
        ('--damaged', ('--real={broken}', *VIDEOS[1:]), ('--real={broken}', *VIDEOS[1:], '--damaged=skip'), outcome),
        ('--bootstrap', 3, 0, results),
        ('--batch', 1, 3, largest('measured')),
        ('--memory', '70%', '1M', lambda run: run.at_once),
        ('--cache', ('--cache',), ('--no-cache',), lambda run: (run.folder / 'cache').exists()),
        ('--device', 'cpu', 'nowhere', outcome),
    ),
    *rows(
        'calc_metrics_video',
        ('--metrics=fvd6_8f', '--bootstrap=0', '--device=cpu', '--no-cache'),
        ('--network', '{snapshot}', '{early}', results),
        (
            '--reference',
            ('--fake={fake}', '--data={second}'),
            ('--fake={fake}', '--data={second}', '--reference=footage'),
            outcome,
        ),
        ('--first-seed', ('--network={snapshot}',), ('--network={snapshot}', '--first-seed=9'), results),
        ('--trunc', ('--network={snapshot}',), ('--network={snapshot}', '--trunc=0.3'), results),
        ('--image-network', ('--network={snapshot}',), ('--network={snapshot}', '--image-network={other}'), outcome),
        (
            '--trust-pickle',
            ('--fake={fake}', '--data={of_refused}'),
            ('--fake={fake}', '--data={of_refused}', '--trust-pickle'),
            outcome,
        ),
    ),
    *rows(
        'calc_metrics_video',
        ('--network={snapshot}', '--device=cpu', '--plugin={plugin}', '--metrics=test_only_data'),
        ('--data', None, '{second}', results),
        ('--plugin', ('--plugin={plugin}',), ('--plugin={plugin}x',), outcome),
    ),
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
