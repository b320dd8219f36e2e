/* libclamav evaluates the expressions of all logical signatures anew for each layer that it scans, from their text
 * (matcher-ac.c: cli_ac_chklsig). The dynamic linker finds the functions below first, those of the executable:
 *
 * - cli_ac_chklsig itself. Most expressions are numbers that are joined by one operator, 0&1&2 or 0|1. Those are evaluated
 *   here; with &, the first number that has not matched ends it. Everything else goes to libclamav's function.
 * - sscanf with the formats "%u" and "%u,%u", by which libclamav's function reads numbers. libc first measures all the text behind
 *   them. Plain numbers are read here. Everything else goes to libc: other formats, white space, signs, long numbers.
 *
 * All of the process comes here. That is harmless: there is no state but the switches, and locale has no part in these formats.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* How many subsignatures a logical signature can have (readdb.c: "Maximum number of subsignatures"). */
#define MOST_SUBSIGNATURES 64

/* No number of so many digits overflows. */
#define MOST_DIGITS 9

/* Not from stdio.h, which gives these names to one another, differently in each standard. The third came with glibc 2.38. */
int vsscanf(const char *text, const char *format, va_list arguments);
int __isoc99_vsscanf(const char *text, const char *format, va_list arguments);
__attribute__((weak)) int __isoc23_vsscanf(const char *text, const char *format, va_list arguments);
int sscanf(const char *text, const char *format, ...);
int __isoc99_sscanf(const char *text, const char *format, ...);
int __isoc23_sscanf(const char *text, const char *format, ...);

/* Private to libclamav: `lists` is only for versions that have it with these parameters and this meaning. */
typedef int evaluate(const char *expression, const char *end, uint32_t *counts, unsigned *count, uint64_t *ids, unsigned parse_only);
evaluate cli_ac_chklsig;

static atomic_int enabled, lists_enabled;
static _Atomic(evaluate *) libclamavs;

/* Whether numbers are read, and lists evaluated, here from now on. */
void clamgate_fast_logical_expressions(int numbers, int lists)
{
    atomic_store(&enabled, numbers);
    atomic_store(&lists_enabled, lists);
}

/* What a list of numbers with one operator comes to, given how often each subsignature matched: 1 or 0. If 1, adds all those matches to
 * *count, and to *ids a bit for each that matched. -1 for what libclamav must evaluate. Expressions are well-formed: libclamav
 * refuses others when it loads them.
 */
int clamgate_evaluate_list(const char *expression, const char *end, const uint32_t *counts, unsigned *count, uint64_t *ids)
{
    const char *next = expression;
    char operator = '&';
    unsigned matches = 0;
    uint64_t matched = 0;
    int all = 1;
    for (int first = 1;; first = 0) {
        unsigned id = 0;
        const char *digits = next;
        for (; next < end && next - digits < 2 && *next >= '0' && *next <= '9'; next++)
            id = id * 10 + (unsigned)(*next - '0');
        if (next == digits || id >= MOST_SUBSIGNATURES)
            return -1;
        matches += counts[id];
        if (counts[id])
            matched |= (uint64_t)1 << id;
        else
            all = 0;
        if (next == end)
            break;
        if ((*next != '&' && *next != '|') || (!first && *next != operator))
            return -1;
        operator = *next++;
        /* Operators have no precedence: the rest, whatever it is, is the right side. */
        if (operator == '&' && !all)
            return 0;
    }
    int result = operator == '&' ? all : matched != 0;
    if (result) {
        *count += matches;
        *ids |= matched;
    }
    return result;
}

int cli_ac_chklsig(const char *expression, const char *end, uint32_t *counts, unsigned *count, uint64_t *ids, unsigned parse_only)
{
    if (!parse_only && atomic_load_explicit(&lists_enabled, memory_order_relaxed)) {
        int result = clamgate_evaluate_list(expression, end, counts, count, ids);
        if (result >= 0)
            return result;
    }
    evaluate *theirs = atomic_load_explicit(&libclamavs, memory_order_relaxed);
    if (!theirs) {
        theirs = (evaluate *)dlsym(RTLD_NEXT, "cli_ac_chklsig");
        /* Only libclamav calls this, so it is there. Without it no signature would match. */
        if (!theirs)
            abort();
        atomic_store_explicit(&libclamavs, theirs, memory_order_relaxed);
    }
    return theirs(expression, end, counts, count, ids, parse_only);
}

/* The end of a number of one to nine digits at the beginning of a text, or NULL. */
static const char *read_number(const char *text, unsigned *number)
{
    const char *end = text;
    for (*number = 0; *end >= '0' && *end <= '9'; end++) {
        if (end - text == MOST_DIGITS)
            return NULL;
        *number = *number * 10 + (unsigned)(*end - '0');
    }
    return end == text ? NULL : end;
}

/* What sscanf returns, with that many numbers; or -1 for what libc must read. */
int clamgate_read_numbers(const char *text, const char *format, unsigned numbers[2])
{
    int two = strcmp(format, "%u,%u") == 0;
    if (!two && strcmp(format, "%u") != 0)
        return -1;
    const char *end = read_number(text, &numbers[0]);
    if (!end)
        return -1;
    if (!two || *end != ',')
        return 1;
    return read_number(end + 1, &numbers[1]) ? 2 : -1;
}

static int scan(const char *text, const char *format, va_list arguments,
                int (*libc)(const char *, const char *, va_list))
{
    unsigned numbers[2];
    int count = atomic_load_explicit(&enabled, memory_order_relaxed) ? clamgate_read_numbers(text, format, numbers) : -1;
    if (count < 0)
        return libc(text, format, arguments);
    for (int i = 0; i < count; i++)
        *va_arg(arguments, unsigned *) = numbers[i];
    return count;
}

#define SSCANF(name, libc)                                                                                                     \
    int name(const char *text, const char *format, ...)                                                                        \
    {                                                                                                                          \
        va_list arguments;                                                                                                     \
        va_start(arguments, format);                                                                                           \
        int count = scan(text, format, arguments, libc);                                                                       \
        va_end(arguments);                                                                                                     \
        return count;                                                                                                          \
    }

SSCANF(sscanf, vsscanf)
SSCANF(__isoc99_sscanf, __isoc99_vsscanf)
SSCANF(__isoc23_sscanf, __isoc23_vsscanf ? __isoc23_vsscanf : __isoc99_vsscanf)
