/* engine/tasks.c - see tasks.h. */
#include "engine/tasks.h"

#include <string.h>

const char *const pgd_task_names[PGD_TASK_NAMES] = {
    "Anna", "Peter",  "Maria", "David",  "Laura", "Simon",  "Helen", "Oscar",  "Clara", "Henry",  "Julia", "Frank",
    "Nora", "Victor", "Alice", "Martin", "Emma",  "Robert", "Diana", "George", "Sarah", "Thomas", "Linda", "Walter",
};

const struct pgd_task_kind pgd_task_kinds[PGD_TASK_KINDS] = {
    {"animal", {"horse", "tiger", "rabbit", "snake", "goat", "wolf", "monkey", "duck", "bear", "mouse"}},
    {"fruit", {"apple", "banana", "cherry", "lemon", "grape", "mango", "peach", "plum", "melon", "pear"}},
    {"colour", {"red", "blue", "green", "yellow", "purple", "black", "white", "brown", "grey", "pink"}},
    {"country", {"France", "Brazil", "Japan", "Egypt", "Canada", "India", "Kenya", "Peru", "Norway", "Spain"}},
    {"tool", {"hammer", "saw", "drill", "shovel", "axe", "wrench", "knife", "ruler", "brush", "chisel"}},
    {"drink", {"water", "coffee", "milk", "beer", "wine", "juice", "tea", "cocoa", "rum", "cider"}},
    {"garment", {"shirt", "jacket", "skirt", "scarf", "coat", "dress", "hat", "glove", "sock", "belt"}},
    {"instrument", {"piano", "violin", "guitar", "drum", "flute", "harp", "trumpet", "cello", "organ", "banjo"}},
    {"job", {"doctor", "teacher", "baker", "lawyer", "farmer", "nurse", "pilot", "painter", "sailor", "judge"}},
    {"metal", {"iron", "gold", "silver", "copper", "zinc", "lead", "tin", "nickel", "steel", "bronze"}},
};

const struct pgd_task *pgd_task_at(uint32_t index)
{
    static const struct pgd_task *const tasks[] = {&pgd_task_keys, &pgd_task_lookup, &pgd_task_copy, &pgd_task_words,
                                                   &pgd_task_facts};
    return index < sizeof(tasks) / sizeof(tasks[0]) ? tasks[index] : NULL;
}

void pgd_task_shuffle(struct pgd_rng *rng, uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t other = (uint32_t) pgd_rng_below(rng, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
}

void pgd_task_numbers(struct pgd_rng *rng, uint32_t digits, uint32_t *numbers)
{
    uint32_t least = 1;
    for (uint32_t i = 1; i < digits; i++) {
        least *= 10;
    }
    for (uint32_t i = 0; i < PGD_RECALL_OPTIONS_MAX; i++) {
        bool is_new = false;
        while (!is_new) {
            numbers[i] = least + (uint32_t) pgd_rng_below(rng, 9 * (uint64_t) least);
            is_new = true;
            for (uint32_t j = 0; j < i; j++) {
                is_new = is_new && numbers[j] != numbers[i];
            }
        }
    }
}

void pgd_task_word(struct pgd_rng *rng, uint32_t letters, char *word)
{
    static const char consonants[] = "bdfgklmnprstvz";
    static const char vowels[] = "aeiou";
    for (uint32_t i = 0; i < letters; i++) {
        word[i] = i % 2 == 0 ? consonants[pgd_rng_below(rng, sizeof(consonants) - 1)]
                             : vowels[pgd_rng_below(rng, sizeof(vowels) - 1)];
    }
    word[letters] = '\0';
}

void pgd_task_set_options(struct pgd_quiz_item *item, const char (*answers)[PGD_QUIZ_TEXT_BYTES], uint32_t right)
{
    for (uint32_t i = 0; i < PGD_RECALL_OPTIONS_MAX; i++) {
        memcpy(item->options[i], answers[(right + i) % PGD_RECALL_OPTIONS_MAX], PGD_QUIZ_TEXT_BYTES);
    }
}
