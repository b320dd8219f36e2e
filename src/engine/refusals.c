/* When the operating system refuses libclamav a temporary file (no space, no descriptors, no directory, not there any more),
 * most of its parsers skip what they were unpacking, without a message, and the rest of the file is called clean. libclamav
 * asks by the names below, and the dynamic linker finds those of the executable first: they forward to the real ones, which
 * are next in its order, and remember the first refusal on a thread that scans.
 */
#undef _FORTIFY_SOURCE
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In streams.c. */
void clamgate_stream_opened(FILE *file, const char *mode);

/* The directory of the scan's temporary files while this thread is watched, or NULL. */
static _Thread_local const char *scratch;
static _Thread_local const char *refused_call;
static _Thread_local int refused_error;
/* The first call that looked in vain for a file that must have been there if it was ever made, or NULL. */
static _Thread_local const char *vain_call;

/* Forgets what was, and watches this thread. The string stays where it is until clamgate_first_refusal. */
void clamgate_watch_refusals(const char *scratch_dir)
{
    refused_call = NULL;
    vain_call = NULL;
    scratch = scratch_dir;
}

/* Whether the calls of libraries come here: not if this code is a part of a library itself. */
int clamgate_hears_refusals(void)
{
    return dlsym(RTLD_DEFAULT, "open64") == (void *)open64 && dlsym(RTLD_DEFAULT, "write") == (void *)write;
}

/* Ends the watch: the first call that was refused, with its errno; else the first one that was in vain; else NULL. */
const char *clamgate_first_refusal(int *error, int *in_vain)
{
    scratch = NULL;
    *in_vain = !refused_call && vain_call;
    *error = *in_vain ? ENOENT : refused_error;
    return *in_vain ? vain_call : refused_call;
}

static void note(const char *call)
{
    if (scratch && !refused_call) {
        refused_call = call;
        refused_error = errno;
    }
}

/* Refusals that do not depend on what is asked for. */
static int exhausted(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO;
}

/* What libclamav looks for without having made it: the scripts and the inline data of a page that has none (scanners.c:
 * cli_scanhtml, bytecode.c: bytecode_context_reset), and each stream of an OLE2 document, by the digest of its name and a
 * number, in each directory of the document (scanners.c: cli_ole2_scan_tempdir, vba_extract.c, xlm_extract.c).
 */
static int may_be_missing(const char *name)
{
    if (strcmp(name, "javascript") == 0 || strcmp(name, "rfc2397") == 0)
        return 1;
    size_t number = strlen(name) > 33 ? strspn(name + 33, "0123456789") : 0;
    return number > 0 && strspn(name, "0123456789abcdef") == 32 && name[32] == '_' && name[33 + number] == '\0';
}

/* Whether the first characters of a path are one that is there. Keeps errno. */
static int exists(const char *path, size_t length)
{
    char copy[PATH_MAX];
    if (length >= sizeof(copy))
        return 0;
    memcpy(copy, path, length);
    copy[length] = '\0';
    int before = errno;
    int found = access(copy, F_OK) == 0;
    errno = before;
    return found;
}

/* What could not be opened to be read. What is below the scratch directory libclamav made in this scan, but for some names, and
 * its directory it always made. A cabinet's member that it could not unpack it looks for all the same (libmspack.c), so a file
 * that is missing alone may be the input's doing. Elsewhere files may rightly not be there.
 */
static void note_unopened(const char *call, const char *path, int is_directory)
{
    size_t length = scratch ? strlen(scratch) : 0;
    if (exhausted())
        note(call);
    if (!scratch || strncmp(path, scratch, length) != 0 || path[length] != '/')
        return;
    const char *slash = strrchr(path, '/');
    int is_missing_alone = errno == ENOENT && exists(path, (size_t)(slash - path));
    if (is_missing_alone && may_be_missing(slash + 1))
        return;
    if (!is_missing_alone || is_directory)
        note(call);
    else if (!vain_call)
        vain_call = call;
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
    if (fd < 0 && (flags & O_CREAT))
        note("open");
    else if (fd < 0)
        note_unopened("open", path, 0);
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
    if (file)
        clamgate_stream_opened(file, mode);
    else if (strpbrk(mode, "wa+"))
        note("fopen");
    else
        note_unopened("fopen", path, 0);
    return file;
}

FILE *fdopen(int fd, const char *mode)
{
    FILE *file = REAL(fdopen)(fd, mode);
    if (file)
        clamgate_stream_opened(file, mode);
    else
        note("fdopen");
    return file;
}

/* What was buffered meets the disk here, or met it before and left the error flag. */
int fclose(FILE *file)
{
    int failed = scratch && ferror(file);
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
    if (!dir)
        note_unopened("opendir", path, 1);
    return dir;
}
