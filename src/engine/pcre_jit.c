/* libclamav compiles its regular-expression signatures without PCRE2's JIT (regex_pcre.c: cli_pcre_compile). It calls the two
 * functions below by name, and the dynamic linker finds those of the executable first: they forward to the real ones, which
 * are next in its order, and add the JIT.
 *
 * A match that the JIT gives up on, for want of stack or because its own way of counting reached the match limit, is tried
 * again without it: no match is lost, and limits mean what they meant.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* From pcre2.h, whose package is not needed to build libclamav's users. These values are part of its ABI. */
#define PCRE2_JIT_COMPLETE 0x00000001u
#define PCRE2_NO_JIT 0x00002000u
#define PCRE2_ERROR_NOMATCH (-1)
#define PCRE2_ERROR_INTERNAL (-44)
#define PCRE2_ERROR_MATCHLIMIT (-47)
#define PCRE2_ERROR_DEPTHLIMIT (-53)
#define PCRE2_ERROR_HEAPLIMIT (-63)

typedef void *(*compile_fn)(const uint8_t *, size_t, uint32_t, int *, size_t *, void *);
typedef int (*jit_compile_fn)(void *, uint32_t);
typedef int (*match_fn)(const void *, const uint8_t *, size_t, size_t, uint32_t, void *, void *);

static compile_fn real_compile;
static jit_compile_fn real_jit_compile;
static match_fn real_match;
static atomic_int enabled;
static _Thread_local int gave_up;

/* Before main: no thread can be in the functions below yet. */
__attribute__((constructor)) static void resolve(void)
{
    real_compile = (compile_fn)dlsym(RTLD_NEXT, "pcre2_compile_8");
    real_jit_compile = (jit_compile_fn)dlsym(RTLD_NEXT, "pcre2_jit_compile_8");
    real_match = (match_fn)dlsym(RTLD_NEXT, "pcre2_match_8");
}

/* Whether patterns that are compiled from now on get the JIT. */
void clamgate_pcre_jit(int enable)
{
    atomic_store(&enabled, enable);
}

void *pcre2_compile_8(const uint8_t *pattern, size_t length, uint32_t options, int *error, size_t *offset, void *context)
{
    void *code = real_compile ? real_compile(pattern, length, options, error, offset, context) : NULL;
    /* A pattern that the JIT does not support, or a system that forbids it, keeps the interpreter. */
    if (code && real_jit_compile && atomic_load(&enabled))
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
