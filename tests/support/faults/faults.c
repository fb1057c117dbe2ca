/* Fail, kill or record the file operations of a process below one folder.
 *
 * Loaded with LD_PRELOAD, this library stands in front of the C library. It does nothing until `faults_arm` is called.
 * Then it numbers every operation on a path below the folder, from 1. At the chosen number it kills the process, or
 * lets the operation fail with an error of the system; or it writes a record of each operation, with its data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, SYNC, RENAME, LINK, SYMLINK, UNLINK, RMDIR, MKDIR, TRUNCATE, CHMOD };
enum { ABOUT_TO_HAPPEN = 256 };  /* in a record: a request, which may fail; without it a change that has happened */
enum mode { RECORD, KILL, FAIL_ONCE, FAIL_FROM };

/* One operation in the record; paths and data follow. `sized` is an offset, a length, or for SYNC 1 for a folder. */
struct record {
    uint32_t kind, path_bytes, other_bytes, data_bytes;
    int64_t sized;
    uint64_t inode;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_bytes;
static unsigned kinds;  /* a bit for each kind that counts */
static enum mode mode;
static long target, counter;
static int code, record_fd = -1;

void faults_arm(const char *below, unsigned kinds_, int mode_, long target_, int code_, const char *record_path)
{
    snprintf(folder, sizeof folder, "%s", below);
    kinds = kinds_, mode = mode_, target = target_, code = code_, counter = 0;
    if (*record_path)
        record_fd = syscall(SYS_openat, AT_FDCWD, record_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    folder_bytes = strlen(folder);
}

static void write_all(const void *data, size_t bytes)
{
    for (const char *at = data; bytes;) {
        ssize_t written = syscall(SYS_write, record_fd, at, bytes);
        if (written <= 0)
            return;
        at += written, bytes -= written;
    }
}

static void record(unsigned kind, const char *path, const char *other, int64_t sized, uint64_t inode,
                   const void *data, size_t bytes)
{
    if (record_fd < 0)
        return;
    struct record head = {kind, strlen(path), strlen(other), bytes, sized, inode};
    pthread_mutex_lock(&lock);
    write_all(&head, sizeof head);
    write_all(path, head.path_bytes);
    write_all(other, head.other_bytes);
    write_all(data, bytes);
    pthread_mutex_unlock(&lock);
}

/* Count an operation that is about to happen. Returns the error that it must fail with, or 0. */
static int count(enum kind kind, const char *path)
{
    if (!(kinds >> kind & 1))
        return 0;
    if (mode == RECORD)
        record(kind | ABOUT_TO_HAPPEN, path, "", 0, 0, NULL, 0);
    pthread_mutex_lock(&lock);
    long number = ++counter;
    pthread_mutex_unlock(&lock);
    if (number == target && mode == KILL) {
        syscall(SYS_kill, getpid(), SIGKILL);
        pause();
    }
    return (mode == FAIL_ONCE && number == target) || (mode == FAIL_FROM && number >= target) ? code : 0;
}

static int inside(const char *path)
{
    return folder_bytes && !strncmp(path, folder, folder_bytes) && (path[folder_bytes] == '/' || !path[folder_bytes]);
}

static void path_of_fd(int fd, char *path)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t bytes = syscall(SYS_readlinkat, AT_FDCWD, name, path, PATH_MAX - 1);
    path[bytes > 0 ? bytes : 0] = 0;
}

static void absolute_path(int dirfd, const char *name, char *path)
{
    char base[PATH_MAX] = "";
    int fd, bytes = 0;
    if (sscanf(name, "/proc/self/fd/%d/%n", &fd, &bytes) == 1 && bytes) { // a place below an open folder
        dirfd = fd;
        name += bytes;
    }
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    if (dirfd != AT_FDCWD)
        path_of_fd(dirfd, base);
    else if (syscall(SYS_getcwd, base, sizeof base) < 0)
        base[0] = 0;
    if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
        path[0] = 0;
}

static uint64_t inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_ino;
}

#define FAIL(error, value) do { errno = (error); return (value); } while (0)

static int open_at(int dirfd, const char *name, int flags, mode_t bits)
{
    char path[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT, error;
    absolute_path(dirfd, name, path);
    if (!inside(path))
        return syscall(SYS_openat, dirfd, name, flags | O_LARGEFILE, bits);
    if ((error = count(writes ? OPEN : READ, path)))
        FAIL(error, -1);
    int fd = syscall(SYS_openat, dirfd, name, flags | O_LARGEFILE, bits);
    if (fd >= 0 && writes) {
        int before = errno;
        record(OPEN, path, "", flags & O_TRUNC ? 1 : 0, inode_of(fd), NULL, 0);
        errno = before;
    }
    return fd;
}

#define BITS(flags) \
    mode_t bits = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); bits = va_arg(rest, mode_t); va_end(rest); }

int open(const char *name, int flags, ...) { BITS(flags) return open_at(AT_FDCWD, name, flags, bits); }
int open64(const char *name, int flags, ...) { BITS(flags) return open_at(AT_FDCWD, name, flags, bits); }
int openat(int dirfd, const char *name, int flags, ...) { BITS(flags) return open_at(dirfd, name, flags, bits); }
int openat64(int dirfd, const char *name, int flags, ...) { BITS(flags) return open_at(dirfd, name, flags, bits); }

/* The path of an open file below the folder; empty for others. */
static const char *known(int fd, char *path)
{
    path[0] = 0;
    if (folder_bytes && fd > 2 && fd != record_fd)
        path_of_fd(fd, path);
    if (!inside(path))
        path[0] = 0;
    return path;
}

ssize_t read(int fd, void *data, size_t bytes)
{
    char path[PATH_MAX];
    int error = *known(fd, path) ? count(READ, path) : 0;
    if (error)
        FAIL(error, -1);
    return syscall(SYS_read, fd, data, bytes);
}

static ssize_t read_at(int fd, void *data, size_t bytes, off_t offset)
{
    char path[PATH_MAX];
    int error = *known(fd, path) ? count(READ, path) : 0;
    if (error)
        FAIL(error, -1);
    return syscall(SYS_pread64, fd, data, bytes, offset);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset) { return read_at(fd, data, bytes, offset); }
ssize_t pread64(int fd, void *data, size_t bytes, off_t offset) { return read_at(fd, data, bytes, offset); }

ssize_t write(int fd, const void *data, size_t bytes)
{
    char path[PATH_MAX];
    if (!*known(fd, path))
        return syscall(SYS_write, fd, data, bytes);
    int error = count(WRITE, path);
    if (error)
        FAIL(error, -1);
    ssize_t written = syscall(SYS_write, fd, data, bytes);
    int after = errno;
    if (written > 0)
        record(WRITE, path, "", syscall(SYS_lseek, fd, 0, SEEK_CUR) - written, inode_of(fd), data, written);
    errno = after;
    return written;
}

static ssize_t write_at(int fd, const void *data, size_t bytes, off_t offset)
{
    char path[PATH_MAX];
    if (!*known(fd, path))
        return syscall(SYS_pwrite64, fd, data, bytes, offset);
    int error = count(WRITE, path);
    if (error)
        FAIL(error, -1);
    ssize_t written = syscall(SYS_pwrite64, fd, data, bytes, offset);
    int after = errno;
    if (written > 0)
        record(WRITE, path, "", offset, inode_of(fd), data, written);
    errno = after;
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return write_at(fd, data, bytes, offset); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return write_at(fd, data, bytes, offset); }

/* For libraries that write through stdio. Their `fopen` does not pass here: the file exists before. */
size_t fwrite(const void *data, size_t size, size_t number, FILE *file)
{
    static size_t (*next)(const void *, size_t, size_t, FILE *);
    char path[PATH_MAX];
    if (!next)
        next = dlsym(RTLD_NEXT, "fwrite");
    int fd = folder_bytes ? fileno(file) : -1;
    if (fd < 0 || !*known(fd, path))
        return next(data, size, number, file);
    int error = count(WRITE, path);
    if (error)
        FAIL(error, 0);
    off_t offset = ftello(file);
    size_t written = next(data, size, number, file);
    record(WRITE, path, "", offset, inode_of(fd), data, written * size);
    return written;
}

static int sync_file(int fd, long call)
{
    char path[PATH_MAX];
    struct stat status;
    if (!*known(fd, path))
        return syscall(call, fd);
    int error = count(SYNC, path);
    if (error)
        FAIL(error, -1);
    int result = syscall(call, fd), after = errno;
    if (!result && !fstat(fd, &status))
        record(SYNC, path, "", S_ISDIR(status.st_mode) ? 1 : 0, status.st_ino, NULL, 0);
    errno = after;
    return result;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

static int truncate_fd(int fd, off_t length)
{
    char path[PATH_MAX];
    if (!*known(fd, path))
        return syscall(SYS_ftruncate, fd, length);
    int error = count(TRUNCATE, path);
    if (error)
        FAIL(error, -1);
    int result = syscall(SYS_ftruncate, fd, length), after = errno;
    if (!result)
        record(TRUNCATE, path, "", length, inode_of(fd), NULL, 0);
    errno = after;
    return result;
}

int ftruncate(int fd, off_t length) { return truncate_fd(fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_fd(fd, length); }

/* An operation on one name. */
static int on_name(enum kind kind, int dirfd, const char *name, long call, long argument)
{
    char path[PATH_MAX];
    absolute_path(dirfd, name, path);
    int counts = inside(path), error = counts ? count(kind, path) : 0;
    if (error)
        FAIL(error, -1);
    int result = syscall(call, dirfd, name, argument), after = errno;
    if (counts && !result)
        record(kind, path, "", argument, 0, NULL, 0);
    errno = after;
    return result;
}

int unlink(const char *name) { return on_name(UNLINK, AT_FDCWD, name, SYS_unlinkat, 0); }
int rmdir(const char *name) { return on_name(RMDIR, AT_FDCWD, name, SYS_unlinkat, AT_REMOVEDIR); }
int unlinkat(int dirfd, const char *name, int flags)
{
    return on_name(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dirfd, name, SYS_unlinkat, flags);
}
int mkdir(const char *name, mode_t bits) { return on_name(MKDIR, AT_FDCWD, name, SYS_mkdirat, bits); }
int mkdirat(int dirfd, const char *name, mode_t bits) { return on_name(MKDIR, dirfd, name, SYS_mkdirat, bits); }
int chmod(const char *name, mode_t bits) { return on_name(CHMOD, AT_FDCWD, name, SYS_fchmodat, bits); }

int fchmod(int fd, mode_t bits)
{
    char path[PATH_MAX];
    int error = *known(fd, path) ? count(CHMOD, path) : 0;
    if (error)
        FAIL(error, -1);
    return syscall(SYS_fchmod, fd, bits);
}

/* An operation on two names. */
static int on_names(enum kind kind, int from, const char *name, int to, const char *other, long call, int flags)
{
    char path[PATH_MAX], target_path[PATH_MAX];
    absolute_path(from, name, path);
    absolute_path(to, other, target_path);
    int counts = inside(path) || inside(target_path), error = counts ? count(kind, path) : 0;
    if (error)
        FAIL(error, -1);
    int result = syscall(call, from, name, to, other, flags), after = errno;
    struct stat status = {0};
    if (counts && !result) {
        fstatat(to, other, &status, AT_SYMLINK_NOFOLLOW); /* a link to an open file names no path below the folder */
        record(kind, path, target_path, 0, status.st_ino, NULL, 0);
    }
    errno = after;
    return result;
}

int rename(const char *name, const char *other)
{
    return on_names(RENAME, AT_FDCWD, name, AT_FDCWD, other, SYS_renameat2, 0);
}
int renameat(int from, const char *name, int to, const char *other)
{
    return on_names(RENAME, from, name, to, other, SYS_renameat2, 0);
}
int link(const char *name, const char *other)
{
    return on_names(LINK, AT_FDCWD, name, AT_FDCWD, other, SYS_linkat, 0);
}
int linkat(int from, const char *name, int to, const char *other, int flags)
{
    return on_names(LINK, from, name, to, other, SYS_linkat, flags);
}

static int make_symlink(const char *content, int dirfd, const char *name)
{
    char path[PATH_MAX];
    absolute_path(dirfd, name, path);
    int counts = inside(path), error = counts ? count(SYMLINK, path) : 0;
    if (error)
        FAIL(error, -1);
    int result = syscall(SYS_symlinkat, content, dirfd, name), after = errno;
    if (counts && !result)
        record(SYMLINK, path, content, 0, 0, NULL, 0);
    errno = after;
    return result;
}

int symlink(const char *content, const char *name) { return make_symlink(content, AT_FDCWD, name); }
int symlinkat(const char *content, int dirfd, const char *name) { return make_symlink(content, dirfd, name); }
