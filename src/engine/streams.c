/* glibc locks a stream for each call as soon as the process has a second thread. libclamav counts a database's lines with one
 * fgetc and one feof for each byte before it loads them (readdb.c: count_line_based_signatures), which then takes longer than
 * the load itself. What a loading thread opens to read is its own: it goes without the locks.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>

static _Thread_local int loading;

/* Whether this thread loads a database, and hands what it opens to no other. */
void clamgate_streams_without_locks(int without)
{
    loading = without;
}

/* A stream was opened (refusals.c). */
void clamgate_stream_opened(FILE *file, const char *mode)
{
    if (loading && mode[0] == 'r' && !strchr(mode, '+'))
        __fsetlocking(file, FSETLOCKING_BYCALLER);
}
