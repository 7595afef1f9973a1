/* norm_table.h: the three kinds of row of a norm op's fault table; OP and run are the including file's. */
#define ROW(what, covers, reference, sentence, fix, proof, invariance, ...)                                     \
    {                                                                                                           \
        OP "." what, OP, covers, reference, sentence, fix, proof, run, &(const hm_norm_variation){__VA_ARGS__}, \
            invariance                                                                                          \
    }
#define FAULT(what, covers, reference, sentence, fix, ...) \
    ROW(what, covers, reference, sentence, fix, NULL, false, __VA_ARGS__)
#define SAME(what, covers, reference, sentence, fix, proof, ...) \
    ROW(what, covers, reference, sentence, fix, proof, false, __VA_ARGS__)
#define ORDER(what, covers, reference, sentence, fix, ...) \
    ROW(what, covers, reference, sentence, fix, NULL, true, __VA_ARGS__)
