/*
 * A layer over the file system that keeps a log of what a program asks of it, so that a test can make
 * of the log what a loss of power would have left; and that fails as it is told to.
 *
 * Preloaded into the program. It watches the folder POWER_LOSS_ROOT and appends a record to the file
 * POWER_LOSS_LOG after each operation there was done and before its caller goes on: whoever hears of
 * something finds all that it stands on in the log. Nothing is really synced. The bytes of the file
 * POWER_LOSS_SWITCHES say what goes wrong; see `enum`.
 *
 * Files that are mapped, as SQLite's -shm, are no one's memory after a loss of power, and are not in the
 * log.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same numbers as in `log.rs`. */
enum operation {
    CREATE = 1, MAKE_DIR, UNLINK, RENAME, WRITE, TRUNCATE, SYNC, SYNC_DIR, SYNC_FAILED
};

/* The switches: one byte each, 0 where all is well. */
enum switch_at {
    /* How many syncs fail, with EIO, of files whose name ends as SYNC_OF says. */
    SYNC_FAILS = 0,
    /* Syncs of files are said to be done, and are not. */
    SYNC_LIES = 1,
    /* Of which files syncs, writes and reads fail: 0: all; 'b': the database (.db); 'l': its log (-wal). */
    FAILS_OF = 2,
    /* Files do not grow any more: ENOSPC. */
    FULL = 3,
    /* How many operations failed with EIO, told by the layer; it stops at 255. */
    FAILED = 4,
    /* The program is killed after the next operation that is in the log or fails: so that none is done
       and not in the log. */
    DIE = 5,
    /* How many milliseconds a sync of a file takes. */
    SYNC_TAKES = 6,
    /* Syncs of files return at once, and are done only when that time is over. */
    SYNC_RETURNS_EARLY = 7,
    /* Writes fail, with EIO: 1: at once; 2: after a part was written. */
    WRITE_FAILS = 8,
    /* Reads fail, with EIO. */
    READ_FAILS = 9,
    SWITCHES = 16
};

struct record {
    uint32_t operation;
    uint32_t length;
    uint64_t file;
    int64_t offset;
};

#define MAX_FILES 4096
#define MAX_PATH 512

/* A watched file that is open; `path` is what follows the root. */
struct open_file {
    int watched;
    int is_dir;
    /* It takes space like others, and is not in the log. */
    int is_mapped;
    uint64_t file;
    char path[MAX_PATH];
};

static struct open_file files[MAX_FILES];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[MAX_PATH];
static size_t root_length;
static int log_file = -1;
static volatile unsigned char *switches;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

static void give_up(const char *what) {
    fprintf(stderr, "power_loss/layer.c: %s: %s\n", what, strerror(errno));
    _exit(99);
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) give_up(name);
    return found;
}

__attribute__((constructor)) static void begin(void) {
    real_open = real("open");
    real_openat = real("openat");
    real_close = real("close");
    real_read = real("read");
    real_pread = real("pread");
    real_write = real("write");
    real_pwrite = real("pwrite");
    real_ftruncate = real("ftruncate");
    real_mkdir = real("mkdir");
    real_unlink = real("unlink");
    real_rename = real("rename");
    const char *folder = getenv("POWER_LOSS_ROOT");
    const char *log_path = getenv("POWER_LOSS_LOG");
    const char *switches_path = getenv("POWER_LOSS_SWITCHES");
    if (!folder || !log_path || !switches_path) return;
    root_length = strlen(folder);
    if (root_length >= MAX_PATH) give_up("the root's path is too long");
    memcpy(root, folder, root_length + 1);
    log_file = real_open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (log_file < 0) give_up(log_path);
    int file = real_open(switches_path, O_RDWR | O_CLOEXEC);
    if (file < 0) give_up(switches_path);
    void *bytes = mmap(NULL, SWITCHES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED) give_up(switches_path);
    switches = bytes;
    real_close(file);
}

/* What follows the root in a path, or NULL where it is elsewhere. */
static const char *within(const char *path) {
    if (log_file < 0 || strncmp(path, root, root_length) != 0) return NULL;
    const char *rest = path + root_length;
    if (*rest == '/') rest++;
    else if (*rest) return NULL;
    return strlen(rest) < MAX_PATH ? rest : NULL;
}

static int ends_with(const char *path, const char *end) {
    size_t length = strlen(path), end_length = strlen(end);
    return length >= end_length && strcmp(path + length - end_length, end) == 0;
}

/* After whatever was asked for, whether it was done or failed. */
static void die_if_told(void) {
    if (switches[DIE]) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void note(enum operation operation, uint64_t file, int64_t offset, const void *data, size_t length) {
    struct record record = {operation, (uint32_t)length, file, offset};
    struct iovec parts[2] = {{&record, sizeof record}, {(void *)data, length}};
    if (writev(log_file, parts, 2) != (ssize_t)(sizeof record + length)) give_up("the log");
    die_if_told();
}

static void note_path(enum operation operation, uint64_t file, const char *path) {
    note(operation, file, 0, path, strlen(path));
}

static struct open_file *watched(int fd) {
    return fd >= 0 && fd < MAX_FILES && files[fd].watched ? &files[fd] : NULL;
}

static uint64_t number_of(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) give_up("fstat");
    return status.st_ino;
}

/* Opens, and takes note of what was made or emptied by it. */
static int opened(int at, const char *path, int flags, mode_t mode) {
    const char *rest = path[0] == '/' || at == AT_FDCWD ? within(path) : NULL;
    if (!rest) return real_openat(at, path, flags, mode);
    pthread_mutex_lock(&mutex);
    struct stat status;
    int is_new = stat(path, &status) != 0;
    int fd = real_openat(at, path, flags, mode);
    int error = errno;
    if (fd >= 0) {
        if (fd >= MAX_FILES) give_up("too many open files");
        struct open_file *file = &files[fd];
        file->watched = 1;
        file->file = number_of(fd);
        file->is_dir = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
        file->is_mapped = ends_with(rest, "-shm");
        strcpy(file->path, rest);
        if (file->is_mapped) {}
        else if (is_new) note_path(CREATE, file->file, rest);
        else if (flags & O_TRUNC) note(TRUNCATE, file->file, 0, NULL, 0);
    }
    pthread_mutex_unlock(&mutex);
    errno = error;
    return fd;
}

#define MODE(flags, mode)                                   \
    mode_t mode = 0;                                        \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode = va_arg(rest, mode_t);                        \
        va_end(rest);                                       \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(at, path, flags, mode);
}

/* What the macros of _FORTIFY_SOURCE make of a call without a mode. */
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }

int close(int fd) {
    pthread_mutex_lock(&mutex);
    if (fd >= 0 && fd < MAX_FILES) files[fd].watched = 0;
    int result = real_close(fd);
    pthread_mutex_unlock(&mutex);
    return result;
}

/* How much of a write there is space for. */
static size_t space_for(int fd, size_t length, off_t offset) {
    struct stat status;
    if (!switches[FULL] || fstat(fd, &status) != 0) return length;
    if (offset + (off_t)length <= status.st_size) return length;
    /* As file systems do, it takes what there is space for first. */
    return offset < status.st_size ? (size_t)(status.st_size - offset) : 0;
}

static int is_to_fail(const struct open_file *file) {
    if (file->is_mapped) return 0;
    switch (switches[FAILS_OF]) {
    case 'b': return ends_with(file->path, ".db");
    case 'l': return ends_with(file->path, "-wal");
    default: return 1;
    }
}

static int failed_with(int error) {
    die_if_told();
    errno = error;
    return -1;
}

static int failed(void) {
    if (switches[FAILED] < 255) switches[FAILED]++;
    return failed_with(EIO);
}

#define SECTOR 512

static ssize_t written(int fd, struct open_file *file, const void *data, size_t length, off_t offset) {
    size_t space = space_for(fd, length, offset);
    if (space == 0 && length > 0) return failed_with(ENOSPC);
    if (switches[WRITE_FAILS] && is_to_fail(file)) {
        if (switches[WRITE_FAILS] == 1 || space <= SECTOR) return failed();
        space /= 2;
    }
    ssize_t result = real_pwrite(fd, data, space, offset);
    if (result > 0 && !file->is_mapped) note(WRITE, file->file, offset, data, (size_t)result);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    pthread_mutex_lock(&mutex);
    struct open_file *file = watched(fd);
    ssize_t result = file ? written(fd, file, data, length, offset) : real_pwrite(fd, data, length, offset);
    pthread_mutex_unlock(&mutex);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return pwrite(fd, data, length, (off_t)offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (!watched(fd)) return real_write(fd, data, length);
    pthread_mutex_lock(&mutex);
    int appends = fcntl(fd, F_GETFL) & O_APPEND;
    off_t offset = lseek(fd, 0, appends ? SEEK_END : SEEK_CUR);
    ssize_t result = written(fd, watched(fd), data, length, offset);
    if (result > 0) lseek(fd, offset + result, SEEK_SET);
    pthread_mutex_unlock(&mutex);
    return result;
}

static int read_fails(int fd) {
    pthread_mutex_lock(&mutex);
    struct open_file *file = watched(fd);
    int fails = file && !file->is_dir && switches[READ_FAILS] && is_to_fail(file);
    if (fails) failed();
    pthread_mutex_unlock(&mutex);
    return fails;
}

ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    return read_fails(fd) ? -1 : real_pread(fd, data, length, offset);
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset) {
    return pread(fd, data, length, (off_t)offset);
}

ssize_t read(int fd, void *data, size_t length) {
    if (!watched(fd)) return real_read(fd, data, length);
    return read_fails(fd) ? -1 : real_read(fd, data, length);
}

/* What the macros of _FORTIFY_SOURCE make of a call with a buffer of a size that is known. */
ssize_t __pread_chk(int fd, void *data, size_t length, off_t offset, size_t size) {
    (void)size;
    return pread(fd, data, length, offset);
}

ssize_t __pread64_chk(int fd, void *data, size_t length, off64_t offset, size_t size) {
    (void)size;
    return pread(fd, data, length, (off_t)offset);
}

ssize_t __read_chk(int fd, void *data, size_t length, size_t size) {
    (void)size;
    return read(fd, data, length);
}

int ftruncate(int fd, off_t length) {
    pthread_mutex_lock(&mutex);
    struct open_file *file = watched(fd);
    int result = real_ftruncate(fd, length);
    if (file && !file->is_mapped && result == 0) note(TRUNCATE, file->file, length, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, (off_t)length); }

static void wait_ms(unsigned ms) {
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {}
}

/* A sync that its caller believes to be over. */
struct late {
    uint64_t file;
    unsigned ms;
};

static void *sync_late(void *argument) {
    struct late *late = argument;
    wait_ms(late->ms);
    pthread_mutex_lock(&mutex);
    note(SYNC, late->file, 0, NULL, 0);
    pthread_mutex_unlock(&mutex);
    free(late);
    return NULL;
}

static void return_early(const struct open_file *file) {
    struct late *late = malloc(sizeof *late);
    if (!late) give_up("malloc");
    *late = (struct late){file->file, switches[SYNC_TAKES]};
    pthread_t thread;
    if ((errno = pthread_create(&thread, NULL, sync_late, late)) != 0) give_up("a thread");
    pthread_detach(thread);
}

static int synced(int fd) {
    /* Not while it holds others up: only who syncs waits. */
    if (log_file >= 0 && watched(fd) && !switches[SYNC_RETURNS_EARLY]) wait_ms(switches[SYNC_TAKES]);
    pthread_mutex_lock(&mutex);
    struct open_file *file = watched(fd);
    int result = 0;
    if (file && switches[SYNC_FAILS] && is_to_fail(file)) {
        switches[SYNC_FAILS]--;
        note(SYNC_FAILED, file->file, 0, NULL, 0);
        result = failed();
    } else if (file && file->is_dir) {
        note_path(SYNC_DIR, 0, file->path);
    } else if (file && switches[SYNC_RETURNS_EARLY]) {
        return_early(file);
    } else if (file && !file->is_mapped && !switches[SYNC_LIES]) {
        note(SYNC, file->file, 0, NULL, 0);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&mutex);
    int result = real_mkdir(path, mode);
    const char *rest = within(path);
    if (rest && result == 0) note_path(MAKE_DIR, 0, rest);
    pthread_mutex_unlock(&mutex);
    return result;
}

int unlink(const char *path) {
    pthread_mutex_lock(&mutex);
    int result = real_unlink(path);
    const char *rest = within(path);
    if (rest && result == 0 && !ends_with(rest, "-shm")) note_path(UNLINK, 0, rest);
    pthread_mutex_unlock(&mutex);
    return result;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&mutex);
    int result = real_rename(from, to);
    const char *before = within(from), *after = within(to);
    if (before && after && result == 0) {
        char both[2 * MAX_PATH];
        size_t length = (size_t)snprintf(both, sizeof both, "%s%c%s", before, 0, after);
        note(RENAME, 0, 0, both, length);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}
