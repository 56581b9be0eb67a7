"""Adaptation: a model and a user's few rows -> an adapter, or a model, that answers them.

    rows -> read_training (read, audit) -> samples -> take_shots | split_by_group -> train and held-out samples
    train samples -> answer_sets -> which answers a question may have -> with_choices -> samples ready to be trained on

`rows` is what happens to the rows before anything is trained.
"""
