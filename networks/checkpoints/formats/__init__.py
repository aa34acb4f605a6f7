"""One file for each format of checkpoints: whether a file's content is of the format, and what to build from it.

Every module here has `matches(contents) -> bool` and `build_generator(contents) -> torch.nn.Module`, and `build_encoder`
where the format has encoders. `contents` is what the safe readers give: nodes, plain containers, or a mapping whose
values are loaded when they are asked for.
"""
