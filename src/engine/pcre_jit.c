/* libclamav compiles its regular-expression signatures without PCRE2's JIT (regex_pcre.c: cli_pcre_compile). It calls the two
 * functions below by name, and the dynamic linker finds those of the executable first: they forward to the real ones, which
 * are next in its order, and add the JIT.
 *
 * A match that the JIT gives up on, for want of stack or because its own way of counting reached the match limit, is tried
 * again without it: limits mean what they meant. A "no match" has to be believed, and the JIT of PCRE2 10.42 overlooks matches of
 * some patterns (ADR 9): only patterns made of what was compared with the interpreter get it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* From pcre2.h, whose package is not needed to build libclamav's users. These values are part of its ABI. */
#define PCRE2_JIT_COMPLETE 0x00000001u
#define PCRE2_NO_JIT 0x00002000u
#define PCRE2_CONFIG_VERSION 11u
#define PCRE2_ANCHORED 0x80000000u
#define PCRE2_CASELESS 0x00000008u
#define PCRE2_DOLLAR_ENDONLY 0x00000010u
#define PCRE2_DOTALL 0x00000020u
#define PCRE2_MULTILINE 0x00000400u
#define PCRE2_UNGREEDY 0x00040000u
#define PCRE2_ZERO_TERMINATED (~(size_t)0)
#define PCRE2_ERROR_NOMATCH (-1)
#define PCRE2_ERROR_INTERNAL (-44)
#define PCRE2_ERROR_MATCHLIMIT (-47)
#define PCRE2_ERROR_DEPTHLIMIT (-53)
#define PCRE2_ERROR_HEAPLIMIT (-63)

typedef void *(*compile_fn)(const uint8_t *, size_t, uint32_t, int *, size_t *, void *);
typedef int (*config_fn)(uint32_t, void *);
typedef int (*jit_compile_fn)(void *, uint32_t);
typedef int (*match_fn)(const void *, const uint8_t *, size_t, size_t, uint32_t, void *, void *);

static compile_fn real_compile;
static jit_compile_fn real_jit_compile;
static match_fn real_match;
static atomic_int enabled;
static _Thread_local int gave_up;

/* Up to 10.37 the JIT overlooked matches of the plainest patterns (PCRE2Project/pcre2#12). */
static int is_old(void)
{
    config_fn config = (config_fn)dlsym(RTLD_NEXT, "pcre2_config_8");
    char version[64] = "";
    if (!config || config(PCRE2_CONFIG_VERSION, NULL) > (int)sizeof version || config(PCRE2_CONFIG_VERSION, version) < 0)
        return 1;
    char *minor = NULL;
    unsigned long major = strtoul(version, &minor, 10);
    return major < 10 || (major == 10 && (*minor != '.' || strtoul(minor + 1, NULL, 10) < 38));
}

/* Before main: no thread can be in the functions below yet. */
__attribute__((constructor)) static void resolve(void)
{
    real_compile = (compile_fn)dlsym(RTLD_NEXT, "pcre2_compile_8");
    real_jit_compile = is_old() ? NULL : (jit_compile_fn)dlsym(RTLD_NEXT, "pcre2_jit_compile_8");
    real_match = (match_fn)dlsym(RTLD_NEXT, "pcre2_match_8");
}

/* Whether patterns that are compiled from now on get the JIT. */
void clamgate_pcre_jit(int enable)
{
    atomic_store(&enabled, enable);
}

/* What options in parentheses can be, as in (?i) and (?i:a). */
static size_t count_flags(const char *at)
{
    return strspn(at, "ismU-");
}

/* Whether a group is of a kind that was compared; `at` is after its "(?". */
static int is_plain_group(const char *at)
{
    const char *end = at + count_flags(at);
    if (*end == ':' || *end == ')')
        return 1;
    if (*at == 'P') /* by name, which is the same as by number */
        return at[1] == '<' || at[1] == '=';
    if (*at == '<') /* a name, too; not what looks back */
        return at[1] != '=' && at[1] != '!';
    return *at == '=' || *at == '!';
}

/* Whether one of the alternatives around this '|' may be empty. */
static int may_be_empty(const char *pattern, const char *bar)
{
    if (bar == pattern || strchr("(|:=!>", bar[-1]))
        return 1;
    if (bar[-1] == ')') { /* of (?i), which is nothing itself */
        const char *flags = bar - 1;
        while (flags > pattern && strchr("ismU-", flags[-1]))
            flags--;
        if (flags - pattern >= 2 && flags[-1] == '?' && flags[-2] == '(')
            return 1;
    }
    const char *next = bar + 1;
    if (*next == '\0' || *next == ')' || *next == '|')
        return 1;
    return next[0] == '(' && next[1] == '?' && next[2 + count_flags(next + 2)] == ')';
}

/* Whether the JIT is known to find what the interpreter finds. It looks at pairs of characters only and takes no notice of escapes and
 * classes: what is refused without need is slower, and nothing else. Exported for its test. */
int clamgate_pcre_jit_is_trusted(const char *pattern, uint32_t options)
{
    static const char *const refused[] = {
        /* verbs; groups of nothing; possessive quantifiers */
        "(*", "()", ":)", "=)", "!)", ">)", "{0,0", "*+", "++", "?+", "}+",
        /* not compared */
        "\\C", "\\E", "\\G", "\\K", "\\N", "\\P", "\\Q", "\\X", "\\g", "\\k", "\\p",
    };
    const uint32_t compared =
        PCRE2_ANCHORED | PCRE2_CASELESS | PCRE2_DOLLAR_ENDONLY | PCRE2_DOTALL | PCRE2_MULTILINE | PCRE2_UNGREEDY;
    if (options & ~compared)
        return 0;
    for (size_t n = 0; n < sizeof refused / sizeof *refused; n++)
        if (strstr(pattern, refused[n]))
            return 0;
    for (const char *at = pattern; *at; at++) {
        if (at[0] == '|' && may_be_empty(pattern, at))
            return 0;
        if (at[0] == '(' && at[1] == '?' && !is_plain_group(at + 2))
            return 0;
        if (at[0] == '{' && at[1] == '0' && at[2] != ',')
            return 0;
    }
    return 1;
}

void *pcre2_compile_8(const uint8_t *pattern, size_t length, uint32_t options, int *error, size_t *offset, void *context)
{
    void *code = real_compile ? real_compile(pattern, length, options, error, offset, context) : NULL;
    /* libclamav gives no length; a pattern that the JIT does not support, or a system that forbids it, keeps the interpreter. */
    if (code && real_jit_compile && atomic_load(&enabled) && length == PCRE2_ZERO_TERMINATED &&
        clamgate_pcre_jit_is_trusted((const char *)pattern, options))
        (void)real_jit_compile(code, PCRE2_JIT_COMPLETE);
    return code;
}

int pcre2_match_8(const void *code, const uint8_t *subject, size_t length, size_t start, uint32_t options, void *data,
                  void *context)
{
    if (!real_match)
        return PCRE2_ERROR_INTERNAL;
    int result = real_match(code, subject, length, start, options, data, context);
    if (result < PCRE2_ERROR_NOMATCH && !(options & PCRE2_NO_JIT))
        result = real_match(code, subject, length, start, options | PCRE2_NO_JIT, data, context);
    if (result == PCRE2_ERROR_MATCHLIMIT || result == PCRE2_ERROR_DEPTHLIMIT || result == PCRE2_ERROR_HEAPLIMIT)
        gave_up = 1;
    return result;
}

/* Whether a match on this thread was given up at a limit since the last call: libclamav says so in its debug log at most. */
int clamgate_pcre_gave_up(void)
{
    int answer = gave_up;
    gave_up = 0;
    return answer;
}
