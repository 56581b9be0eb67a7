"""How long answers take, and how near to the machine's limit that is.

    questions -> stages of an answer, pictures a second, start and memory ---+
    one picture -> ours | the plain decoder | peers, in turns -> seconds ----+-> results (JSON) -> table, figure
    machine -> products and bytes a second -> the least that work can take --+

measure   jobs that take turns -> Spread of seconds; a command in a process of its own -> seconds and memory
stages    one answer of a Predictor -> seconds of reading, preparing, encoding, decoding
limit     a model's arithmetic and bytes, the machine's rates -> seconds
peers     transformers models of the same size
ours      a model folder -> what is measured of it
run       `monoglot bench`: the parts, their results, the table
figure    results -> one picture
"""
