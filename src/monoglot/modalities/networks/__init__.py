"""The published models' encoders at full size, each an `Encoder` whose parameters have the published names.

    parts (Bottleneck, FrozenNorm) -> resnet (pictures), resnext3d (clips), cnn14 (sounds)

An entry of a published checkpoint fits without its prefix: `encoder.embed_images.`, `encoder.embed_videos.` and
`encoder.embed_audios.`. Checkpoints hold more than is used here, to be left aside: `fc.*`, `*.num_batches_tracked`, and
`spectrogram_extractor.*` (a Fourier transform written out as two matrices).
"""
