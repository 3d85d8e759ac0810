"""What confines a process before the first line of an untrusted program runs in it. Standard library only.

Runs inside the sandbox (zygote.py), where nothing of r1distill but this folder can be imported. Numbers are those of
the kernel's headers: <linux/seccomp.h>, <linux/landlock.h>, <linux/capability.h>, <asm/unistd.h>.
"""

import ctypes
import os
import platform
import resource
import struct

LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CLONE_NEWUSER = 0x10000000
CLONE_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
CAPABILITY_VERSION_3 = 0x20080522
AF_UNIX = 1

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # x86_64 kernels may accept a second set of numbers, marked by this bit
CLONE, CLONE3, SOCKET = {"x86_64": (56, 435, 41), "aarch64": (220, 435, 198)}.get(platform.machine(), (0, 0, 0))

# Denied with EPERM: what an ordinary program has no use for and an escape, a leak or an uncounted gigabyte begins with.
# memfd_create and System V memory belong to no process, so that no limit on processes counts them.
DENIED = {
    "x86_64": {
        "escape": (
            101, 155, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 227, 246, 272,
            298, 300, 303, 304, 305, 308, 310, 311, 312, 313, 320, 321, 323, 159, 154, 153, 212,
        ),
        "keys": (248, 249, 250),
        "memory": (29, 30, 31, 64, 68, 240, 319, 237, 238, 256, 279),
        "neighbours": (141, 203, 251, 103),
    },
    "aarch64": {
        "escape": (
            117, 41, 51, 89, 170, 40, 39, 224, 225, 142, 161, 162, 105, 106, 60, 112, 104, 97, 241, 262, 264,
            265, 266, 268, 270, 271, 272, 273, 294, 280, 282, 171,
        ),
        "keys": (217, 218, 219),
        "memory": (194, 195, 196, 190, 186, 180, 279, 235, 237, 238, 239),
        "neighbours": (140, 122, 30, 116),
    },
}  # fmt: skip
# The same on every architecture: io_uring, the new mount calls, pidfd_getfd, quotactl_fd, memfd_secret.
DENIED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443, 447)

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
KILL_PROCESS, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
EPERM, EACCES, ENOSYS = 1, 13, 38

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}  # file rights by ABI version
LANDLOCK_READ = 0b1101  # execute, read_file, read_dir
LANDLOCK_FILE_RIGHTS = 0xC007  # what may be asked of a plain file: execute, write, read, truncate, ioctl


def limit_resources(limits: dict) -> None:
    """`limits`: memory_bytes, cpu_s, file_bytes, processes. Each process of the tree gets them, and cannot raise them."""
    seconds = int(limits["cpu_s"]) + 2  # a last resort: the zygote measures the CPU time of the whole tree
    for what, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def drop_privileges(uid: int | None) -> None:
    """Become `uid` (where this process is root), with no capability and no way to gain one."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    LIBC.unshare(CLONE_NEWUSER)  # where the kernel allows it: nobody, of a namespace in which nobody is anybody
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    call("capset", LIBC.capset(header, bytes(24)))
    call("no_new_privs", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    call("dumpable", LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))  # or /proc/self, and so /dev/stdin, is root's


def hide_from_children() -> None:
    """Nobody without capabilities may read or trace this process."""
    call("dumpable", LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))


def adopt_orphans() -> None:
    """Grandchildren whose parent ended become children of this process, so that it can find and end them."""
    call("subreaper", LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def system_call_filter() -> bytes | None:
    """The seccomp program, or None on an architecture whose numbers are not known here."""
    machine = platform.machine()
    if machine not in DENIED:
        return None
    denied = sorted({number for group in DENIED[machine].values() for number in group} | {*DENIED_EVERYWHERE})
    program = [
        (LOAD, 0, 0, 4),  # struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, 0),
        (JUMP_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, ERRNO | ENOSYS),
        (JUMP_EQUAL, 0, 1, CLONE3),  # its flags are behind a pointer; libc falls back to clone
        (RETURN, 0, 0, ERRNO | ENOSYS),
        (JUMP_EQUAL, 0, 4, CLONE),
        (LOAD, 0, 0, 16),
        (JUMP_ANY_BIT, 0, 1, CLONE_NAMESPACES),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
        (JUMP_EQUAL, 0, 4, SOCKET),
        (LOAD, 0, 0, 16),
        (JUMP_EQUAL, 1, 0, AF_UNIX),
        (RETURN, 0, 0, ERRNO | EACCES),
        (RETURN, 0, 0, ALLOW),
    ]
    program += [(JUMP_EQUAL, len(denied) - index, 0, number) for index, number in enumerate(denied)]
    program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | EPERM)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def filter_system_calls(program: bytes | None) -> None:
    """Needs `drop_privileges` first. Inherited by every child, and cannot be taken off."""
    if program is None:
        return
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    call("seccomp", LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0))


def landlock_version() -> int:
    """The kernel's Landlock ABI, 0 where it has none."""
    return max(0, LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def restrict_files(readable: list[str], writable: list[str]) -> None:
    """Landlock (https://docs.kernel.org/userspace-api/landlock.html): no file outside of these trees, for ever."""
    version = landlock_version()
    if not version:
        return
    rights = LANDLOCK_RIGHTS[min(version, max(LANDLOCK_RIGHTS))]
    network = 0b11 if version >= 4 else 0  # bind and connect of TCP
    scopes = 0b11 if version >= 6 else 0  # abstract sockets and signals reach only processes of the same domain
    attributes = struct.pack("QQQ", rights, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    call("landlock", ruleset)
    for path, allowed in [(path, LANDLOCK_READ) for path in readable] + [(path, rights) for path in writable]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # what is not there needs no rule
        if not os.path.isdir(path):
            allowed &= rights & LANDLOCK_FILE_RIGHTS
        rule = struct.pack("=Qi", allowed, place)
        call("landlock rule", LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, 1, rule, 0))
        os.close(place)
    call("no_new_privs", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    call("landlock", LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def mount_fresh(path: str, size_bytes: int, inodes: int) -> None:
    """A new empty tmpfs at `path`, in place of the one that was mounted there."""
    LIBC.umount2(path.encode(), 2)  # MNT_DETACH
    options = f"size={size_bytes},nr_inodes={inodes},mode=1777".encode()
    call("mount", LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", 6, options))  # nosuid, nodev


def call(name: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
