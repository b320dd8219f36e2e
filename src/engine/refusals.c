/* When the operating system refuses libclamav a temporary file (no space, no descriptors, no directory), most of its parsers
 * skip what they were unpacking, without a message, and the rest of the file is called clean. libclamav asks by the names below,
 * and the dynamic linker finds those of the executable first: they forward to the real ones, which are next in its order, and
 * remember the first refusal on a thread that scans.
 */
#undef _FORTIFY_SOURCE
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static _Thread_local int watching;
static _Thread_local const char *refused_call;
static _Thread_local int refused_error;

/* Forgets what was, and watches this thread. */
void clamgate_watch_refusals(void)
{
    refused_call = NULL;
    watching = 1;
}

/* Whether the calls of libraries come here: not if this code is a part of a library itself. */
int clamgate_hears_refusals(void)
{
    return dlsym(RTLD_DEFAULT, "open64") == (void *)open64 && dlsym(RTLD_DEFAULT, "write") == (void *)write;
}

/* Ends the watch: the first call that was refused, with its errno, or NULL. */
const char *clamgate_first_refusal(int *error)
{
    watching = 0;
    *error = refused_error;
    return refused_call;
}

static void note(const char *call)
{
    if (watching && !refused_call) {
        refused_call = call;
        refused_error = errno;
    }
}

/* Refusals that do not depend on what is asked for. libclamav also opens files that may rightly not be there. */
static int exhausted(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO;
}

/* The functions behind the names. */
static struct {
    __typeof__(&open64) open64;
    __typeof__(&write) write;
    __typeof__(&mkdir) mkdir;
    __typeof__(&fopen64) fopen64;
    __typeof__(&fdopen) fdopen;
    __typeof__(&fclose) fclose;
    __typeof__(&dup) dup;
    __typeof__(&opendir) opendir;
} real;

/* Looks them up while the program is loaded, before it has threads and signal handlers: dlsym takes locks. */
__attribute__((constructor(101))) static void look_up(void)
{
#define LOOK_UP(name) real.name = (__typeof__(real.name))dlsym(RTLD_NEXT, #name)
    LOOK_UP(open64);
    LOOK_UP(write);
    LOOK_UP(mkdir);
    LOOK_UP(fopen64);
    LOOK_UP(fdopen);
    LOOK_UP(fclose);
    LOOK_UP(dup);
    LOOK_UP(opendir);
}

/* The constructors of libraries run before those of the executable, and may already call: the same is then looked up twice. */
#define REAL(name) (real.name ? real.name : (look_up(), real.name))

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    int fd = REAL(open64)(path, flags, mode);
    if (fd < 0 && ((flags & O_CREAT) || exhausted()))
        note("open");
    return fd;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    ssize_t written = REAL(write)(fd, bytes, count);
    /* Not what our own panic messages meet. */
    if (written < 0 && errno != EINTR && fd > STDERR_FILENO)
        note("write");
    return written;
}

int mkdir(const char *path, mode_t mode)
{
    int result = REAL(mkdir)(path, mode);
    /* The parser of HTML makes its directory again for each script. */
    if (result < 0 && errno != EEXIST)
        note("mkdir");
    return result;
}

FILE *fopen64(const char *path, const char *mode)
{
    FILE *file = REAL(fopen64)(path, mode);
    if (!file && (strpbrk(mode, "wa+") || exhausted()))
        note("fopen");
    return file;
}

FILE *fdopen(int fd, const char *mode)
{
    FILE *file = REAL(fdopen)(fd, mode);
    if (!file)
        note("fdopen");
    return file;
}

/* What was buffered meets the disk here, or met it before and left the error flag. */
int fclose(FILE *file)
{
    int failed = watching && ferror(file);
    if (failed)
        errno = EIO;
    int result = REAL(fclose)(file);
    if (failed || result != 0)
        note("fclose");
    return result;
}

int dup(int fd)
{
    int result = REAL(dup)(fd);
    if (result < 0)
        note("dup");
    return result;
}

DIR *opendir(const char *path)
{
    DIR *dir = REAL(opendir)(path);
    if (!dir && exhausted())
        note("opendir");
    return dir;
}
