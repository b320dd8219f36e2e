/* libclamav reads the numbers of a logical signature's expression anew each time it evaluates it, by sscanf with the formats "%u"
 * and "%u,%u" (matcher-ac.c: cli_ac_chklsig), and libc first measures all the text behind them. The dynamic linker finds the
 * functions below first, those of the executable. They read plain numbers themselves and leave everything else to libc: other
 * formats, white space, signs, long numbers.
 *
 * All of the process comes here. That is harmless: there is no state but the switch, and locale has no part in these formats.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* No number of so many digits overflows. */
#define MOST_DIGITS 9

/* Not from stdio.h, which gives these names to one another, differently in each standard. The third came with glibc 2.38. */
int vsscanf(const char *text, const char *format, va_list arguments);
int __isoc99_vsscanf(const char *text, const char *format, va_list arguments);
__attribute__((weak)) int __isoc23_vsscanf(const char *text, const char *format, va_list arguments);
int sscanf(const char *text, const char *format, ...);
int __isoc99_sscanf(const char *text, const char *format, ...);
int __isoc23_sscanf(const char *text, const char *format, ...);

static atomic_int enabled;

/* Whether numbers are read here from now on. */
void clamgate_fast_logical_expressions(int enable)
{
    atomic_store(&enabled, enable);
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
