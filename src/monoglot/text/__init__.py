"""One language: words, image codes and locations are ids of one vocabulary.

text, Symbols -> Tokenizer -> ids -> Tokenizer -> text        box -> box_to_text -> `<bin_k>` x 4 -> text_to_box -> box
objects -> objects_to_parts -> `<bin_k>` x 4, label, ... -> text_to_objects       codes -> codes_to_text -> `<code_k>` -> text_to_codes
"""
