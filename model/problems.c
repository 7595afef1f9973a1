/* problems.c: the words of a model, and word problems, one JSON object a line. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../certify/safetensors.h"
#include "model.h"

/* ---- words ------------------------------------------------------------------------------------------------------- */

struct hm_vocab {
    json_t *words;
};

hm_vocab *hm_vocab_open(const char *path, char *why, size_t size) {
    json_error_t error;
    json_t *words = json_load_file(path, 0, &error);
    hm_vocab *vocab = NULL;
    size_t i;
    json_t *word;
    if (!words) {
        hm_safetensors_refuse(path, why, size, "%s (line %d)", error.text, error.line);
        return NULL;
    }
    bool fine = json_is_array(words) && json_array_size(words) > 0;
    json_array_foreach(words, i, word) fine = fine && json_is_string(word);
    if (!fine) hm_safetensors_refuse(path, why, size, "the file has to hold a list of strings, at least one");
    else if (!(vocab = malloc(sizeof *vocab))) snprintf(why, size, "no memory for %s", path);
    if (!vocab) {
        json_decref(words);
        return NULL;
    }
    vocab->words = words;
    return vocab;
}

void hm_vocab_close(hm_vocab *vocab) {
    if (!vocab) return;
    json_decref(vocab->words);
    free(vocab);
}

int64_t hm_vocab_count(const hm_vocab *vocab) { return (int64_t)json_array_size(vocab->words); }

const char *hm_vocab_word(const hm_vocab *vocab, int64_t id) {
    return id < 0 ? NULL : json_string_value(json_array_get(vocab->words, (size_t)id));
}

bool hm_model_answer(const hm_vocab *vocab, const int32_t *tokens, int64_t count, char *answer, size_t size) {
    int64_t at = count;
    size_t length = 0;
    const char *word;
    while (at > 0 && !((word = hm_vocab_word(vocab, tokens[at - 1])) && !strcmp(word, "####"))) at--;
    if (at == 0) return false;
    for (; at < count && (word = hm_vocab_word(vocab, tokens[at])) && strlen(word) == 1 && *word >= '0' && *word <= '9';
         at++)
        if (length + 1 < size) answer[length++] = *word;
    if (size) answer[length] = 0;
    return length > 0;
}

/* ---- problems ---------------------------------------------------------------------------------------------------- */

struct hm_problems {
    int64_t count;
    hm_problem *each;
    json_t **line; /* [count]: the texts live there */
};

/* Token ids 0 .. vocab - 1, at least one. NULL if they are anything else. */
static int32_t *read_ids(const json_t *list, int64_t vocab, int64_t *count) {
    size_t n = json_array_size(list);
    int32_t *ids = n ? malloc(n * sizeof *ids) : NULL;
    for (size_t i = 0; ids && i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= vocab) {
            free(ids);
            return NULL;
        }
        ids[i] = (int32_t)json_integer_value(id);
    }
    *count = (int64_t)n;
    return ids;
}

/* NULL, or what is wrong with the line. */
static const char *read_problem(const json_t *line, int64_t vocab, hm_problem *p) {
    const struct {
        const char *key;
        int64_t *to;
    } numbers[] = {{"id", &p->id}, {"difficulty", &p->difficulty}, {"offset", &p->position}};
    const struct {
        const char *key;
        const char **to;
    } texts[] = {
        {"family", &p->family}, {"question", &p->question}, {"solution", &p->solution}, {"answer", &p->answer}};
    for (int i = 0; i < 3; i++) {
        const json_t *value = json_object_get(line, numbers[i].key);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return "id, difficulty and offset have to be integers, 0 or more";
        *numbers[i].to = json_integer_value(value);
    }
    for (int i = 0; i < 4; i++)
        if (!(*texts[i].to = json_string_value(json_object_get(line, texts[i].key))))
            return "family, question, solution and answer have to be strings";
    p->prompt = read_ids(json_object_get(line, "prompt_ids"), vocab, &p->prompt_length);
    p->given = read_ids(json_object_get(line, "solution_ids"), vocab, &p->given_length);
    return p->prompt && p->given ? NULL : "prompt_ids and solution_ids have to be lists of token ids of the model";
}

/* Adds one line; NULL, or what is wrong with it. */
static const char *add_line(hm_problems *problems, const char *text, int64_t vocab) {
    json_error_t error;
    if ((problems->count & (problems->count + 1)) == 0) { /* room for 1, 3, 7, .. */
        size_t room = 2 * (size_t)problems->count + 1;
        hm_problem *each = realloc(problems->each, room * sizeof *each);
        if (each) problems->each = each;
        json_t **line = each ? realloc(problems->line, room * sizeof *line) : NULL;
        if (!line) return "no memory";
        problems->line = line;
    }
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(line)) {
        json_decref(line);
        return "it has to hold a JSON object";
    }
    problems->each[problems->count] = (hm_problem){0};
    problems->line[problems->count] = line;
    return read_problem(line, vocab, &problems->each[problems->count++]);
}

hm_problems *hm_problems_open(const char *path, int64_t vocab, char *why, size_t size) {
    FILE *file = fopen(path, "r");
    hm_problems *problems = file ? calloc(1, sizeof *problems) : NULL;
    char *text = NULL;
    size_t room = 0;
    if (!file) hm_safetensors_refuse(path, why, size, "%s", strerror(errno));
    else if (!problems) snprintf(why, size, "no memory for %s", path);
    for (int64_t number = 1; problems && getline(&text, &room, file) >= 0; number++) {
        const char *wrong = add_line(problems, text, vocab);
        if (!wrong) continue;
        hm_safetensors_refuse(path, why, size, "line %lld: %s", (long long)number, wrong);
        hm_problems_close(problems);
        problems = NULL;
    }
    if (problems && (ferror(file) || problems->count == 0)) {
        hm_safetensors_refuse(path, why, size, ferror(file) ? "it cannot be read" : "there is no problem in it");
        hm_problems_close(problems);
        problems = NULL;
    }
    free(text);
    if (file) fclose(file);
    return problems;
}

void hm_problems_close(hm_problems *problems) {
    if (!problems) return;
    for (int64_t i = 0; i < problems->count; i++) {
        free((void *)problems->each[i].prompt);
        free((void *)problems->each[i].given);
        json_decref(problems->line[i]);
    }
    free(problems->each);
    free(problems->line);
    free(problems);
}

int64_t hm_problems_count(const hm_problems *problems) { return problems->count; }
const hm_problem *hm_problems_at(const hm_problems *problems, int64_t i) { return &problems->each[i]; }
