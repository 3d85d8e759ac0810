"""Programs that attack the machine they run on, each as (name, source). None may end as anything but wrong or timed out.

Collected from research on code graders (their list of thirty) and our own. The expected output of their problem is a
secret that cannot be computed, so that only a program that reads or forges a verdict could pass. What they find out they
print, and the tests look for words in it that must not be there.
"""

PRELUDE = "import os, sys, time, signal, socket, ctypes, threading, subprocess, resource, glob, gc, struct\n"

READS_INPUT_AND_OUTPUT: dict[str, str] = {
    # ---- time
    "spins for ever": "while True: pass",
    "spins with every signal ignored and blocked": """
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass""",
    "never comes back from C: regex backtracking": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "never comes back from C: a power": "print(len(str(3 ** (10 ** 9))))",
    "sleeps with no CPU time": "time.sleep(600)",
    "waits for itself": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "never ends in an exit handler": "import atexit; atexit.register(lambda: time.sleep(600))",
    "never ends in a thread": "threading.Thread(target=lambda: time.sleep(600)).start()",
    "spends its CPU time in children": """
for _ in range(4):
    if os.fork() == 0:
        while True: pass
while True:
    try: os.wait()
    except ChildProcessError: break""",
    "prints a huge integer": "sys.set_int_max_str_digits(0); print(7 ** (10 ** 8))",
    # ---- memory
    "fills memory": "a = []\nwhile True: a.append(bytearray(1 << 24))",
    "fills memory from twenty children": """
for _ in range(20):
    if os.fork() == 0:
        a = bytearray(500 << 20)
        for i in range(0, len(a), 4096): a[i] = 1
        time.sleep(60); os._exit(0)
time.sleep(60)""",
    "raises its own limits and fills memory": """
for name in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_FSIZE', 'RLIMIT_NPROC'):
    try: resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY,) * 2); print('RAISED')
    except (ValueError, OSError): pass
a = []
while True: a.append(bytearray(1 << 24))""",
    "hides memory in files of no folder": """
libc = ctypes.CDLL(None)
try: print('HIDDEN', os.memfd_create('x'))
except OSError: pass
if libc.shmget(0, 1 << 30, 0o1600) >= 0: print('HIDDEN')""",
    "a recursion of a million": """
sys.setrecursionlimit(10 ** 9)
def f(n): return f(n + 1) + 1
f(0)""",
    "a recursion of a million in a thread with a stack of its own": """
sys.setrecursionlimit(10 ** 9)
threading.stack_size(1 << 30)
def f(n): return max([0], key=lambda x: f(n + 1))
t = threading.Thread(target=f, args=(0,)); t.start(); t.join()""",
    # ---- output
    "floods stdout": "while True: sys.stdout.write('x' * 65536)",
    "floods stderr": "while True: sys.stderr.write('x' * 65536)",
    "one line of half a gigabyte": "os.write(1, b'x' * (500 << 20)); print('x' * (500 << 20))",
    "an output file with a hole of a terabyte": "os.lseek(1, 1 << 40, 0); os.write(1, b'x'); os.ftruncate(1, 1 << 40)",
    "an output of NULs, escapes and broken UTF-8": (
        r"sys.stdout.buffer.write(b'\x00\x1b[2J\x1b]0;x\x07\xff\xfe\r\n' * 1000); print('SEC\rRET')"
    ),
    # ---- processes
    "a fork bomb": "while True:\n  try: os.fork()\n  except OSError: pass",
    "a bomb of threads": "while True:\n  try: threading.Thread(target=time.sleep, args=(60,)).start()\n  except RuntimeError: pass",
    "a daemon that keeps the output open": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
os._exit(0)""",
    "a daemon that closes everything and waits": """
if os.fork() == 0:
    os.setsid(); os.closerange(0, 256); time.sleep(600)
print('done')""",
    "a farm of zombies": "for _ in range(60):\n  if os.fork() == 0: os._exit(0)\ntime.sleep(600)",
    "kills everything": "os.kill(-1, signal.SIGKILL)",
    "kills its parent and process 1": """
for pid in (os.getppid(), 1):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV):
        try: os.kill(pid, number)
        except OSError: pass
print('still here')""",
    "stops its parent": "os.kill(os.getppid(), signal.SIGSTOP); os.kill(1, signal.SIGSTOP); print('still here')",
    # ---- crashes
    "a segmentation fault": "ctypes.string_at(0)",
    "an illegal instruction": "os.kill(os.getpid(), signal.SIGILL)",
    "an abort with a core dump": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    # ---- what others know
    "reads the environment of every process": """
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    try: print(open(path, 'rb').read())
    except OSError: pass
print(dict(os.environ))""",
    "reads secrets of the user": """
for path in ('/root/.ssh/id_rsa', os.path.expanduser('~/.ssh/id_rsa'), '/root/.cache/huggingface/token', '/etc/shadow',
             '/etc/passwd', '/root/.netrc', CANARY):
    try: print('FOUND', open(path).read()[:200])
    except OSError: pass""",
    "looks for the expected output in every file": """
for folder, _, names in os.walk('/'):
    if folder.startswith(('/proc', '/sys', '/usr')): continue
    for name in names:
        path = os.path.join(folder, name)
        try:
            if os.path.isfile(path) and os.path.getsize(path) < 1 << 20 and b'SECRET-' in open(path, 'rb').read():
                print('FOUND', path)
        except OSError: pass""",
    "looks for it in every descriptor": """
for name in os.listdir('/proc/self/fd'):
    try: print(name, os.readlink('/proc/self/fd/' + name), os.pread(int(name), 1 << 20, 0))
    except OSError: pass""",
    "looks for it in the frames and objects of its process": """
word = ''.join(['SECRET', chr(45), '41', '734'])
frame = sys._getframe()
while frame:
    if word in repr(frame.f_locals).replace("'word': '" + word, ''): print('FOUND in a frame')
    frame = frame.f_back
for thing in gc.get_objects():
    try:
        text = repr(thing)
        if word in text and thing is not globals() and 'word' not in text: print('FOUND')
    except Exception: pass""",
    "reads the memory of process 1": """
try: print('FOUND', open('/proc/1/maps').read()[:100], open('/proc/1/mem', 'rb'))
except OSError: pass
try: print('FOUND', os.listdir('/proc/1/fd'), os.readlink('/proc/1/cwd'))
except OSError: pass""",
    "traces process 1": "print('TRACED' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 'no')",
    # ---- the network
    "connects by TCP": """
for host in ('127.0.0.1', '1.1.1.1', '169.254.169.254', '::1'):
    try: socket.create_connection((host, PORT), timeout=1).send(b'x'); print('CONNECTED', host)
    except OSError: pass""",
    "asks a name server by UDP": """
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53)); print('CONNECTED')
except OSError: pass
try: print('CONNECTED', socket.gethostbyname('example.org'))
except OSError: pass""",
    "opens a port": """
try:
    s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); print('LISTENS')
except OSError: pass""",
    "speaks to abstract and unix sockets of the machine": """
for address in (chr(0) + 'r1distill-test', '/var/run/docker.sock', '/run/systemd/private', CANARY + '.sock'):
    try:
        s = socket.socket(socket.AF_UNIX); s.connect(address); print('CONNECTED', address)
    except OSError: pass""",
    "sniffs packets and opens odd sockets": """
for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        if family == socket.AF_UNIX: continue
        try: socket.socket(family, kind); print('OPENED', family, kind)
        except OSError: pass""",
    # ---- the kernel
    "makes namespaces of its own": """
libc = ctypes.CDLL(None, use_errno=True)
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
    if libc.unshare(flag) == 0: print('UNSHARED', hex(flag))""",
    "mounts": """
libc = ctypes.CDLL(None)
for source, target, kind in ((b'tmpfs', b'/tmp', b'tmpfs'), (b'proc', b'/proc', b'proc'), (b'/dev/vda', b'/tmp', b'ext4')):
    if libc.mount(source, target, kind, 0, None) == 0: print('MOUNTED')
if libc.mount(None, b'/', None, 32 | 4096, None) == 0: print('MOUNTED')
if libc.umount2(b'/usr', 2) == 0 or libc.chroot(b'/tmp') == 0: print('MOUNTED')""",
    "calls what only the kernel's friends call": """
libc = ctypes.CDLL(None, use_errno=True)
import platform
numbers = {'x86_64': (101, 246, 248, 250, 298, 304, 310, 311, 313, 319, 321, 323), 'aarch64': (117, 104, 217, 219, 241)}
for number in numbers.get(platform.machine(), ()) + (425, 427, 428, 429, 430, 438, 442):
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (1, 38): print('CALLED', number)""",
    "calls by the 32-bit numbers": """
code = bytes([0xB8, 0x14, 0, 0, 0, 0xCD, 0x80, 0xC3])  # mov eax, 20 (getpid); int 0x80; ret
import mmap, platform
if platform.machine() == 'x86_64':
    page = mmap.mmap(-1, 4096, prot=7); page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    print('CALLED', ctypes.CFUNCTYPE(ctypes.c_int)(address)())""",
    "gains privileges": """
for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try: act(); print('GAINED')
    except OSError: pass
libc = ctypes.CDLL(None)
header, data = struct.pack('Ii', 0x20080522, 0), b'\\xff' * 24
if libc.capset(header, data) == 0: print('GAINED')
for path in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd'):
    try:
        if subprocess.run([path, '--help'], capture_output=True).returncode == 0 and os.geteuid() == 0: print('GAINED')
    except OSError: pass""",
    "slows its neighbours": """
try: os.sched_setaffinity(0, range(64)); print('MOVED', len(os.sched_getaffinity(0)))
except OSError: pass
try: os.nice(-20); print('MOVED')
except OSError: pass
try: os.setpriority(os.PRIO_PROCESS, 0, -20); print('MOVED')
except OSError: pass""",
    # ---- files
    "writes outside": """
for path in ('/usr/x', '/bin/x', '/etc/x', '/x', '/dev/x', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches',
             '/r1distill/roles.py', '/packages/x', sys.prefix + '/x', sys.executable, os.__file__, CANARY):
    try: open(path, 'a').write('x'); print('WROTE', path)
    except OSError: pass
for path in ('/dev/sda', '/dev/vda', '/dev/mem', '/dev/kmsg', '/dev/fuse', '/dev/kvm', '/dev/nvidia0'):
    try: os.open(path, os.O_RDWR); print('WROTE', path)
    except OSError: pass""",
    "fills /tmp with small files": """
import itertools
for i in itertools.count():
    try: open(f'/tmp/{i}', 'w').write('x')
    except OSError: break
print('FULL' if i > 10000 else i)""",
    "fills /tmp and /dev/shm": """
for folder in ('/tmp', '/dev/shm'):
    written = 0
    try:
        for i in range(64):
            with open(f'{folder}/{i}', 'wb') as file:
                for _ in range(8): file.write(b'x' * (1 << 20)); written += 1
    except OSError: pass
    print('FULL' if written > 100 else written)""",
    "leaves odd files": """
os.symlink('/etc/passwd', '/tmp/link'); os.mkfifo('/tmp/fifo'); open(b'/tmp/' + b'\\xff' * 200, 'w').close()
os.makedirs('/tmp/' + 'd/' * 100)
try: os.mknod('/tmp/device', 0o600 | 0o20000, os.makedev(1, 3)); print('MADE')
except OSError: pass
os.chmod('/tmp', 0)""",
    "plants code for the next program": """
for name in ('sitecustomize.py', 'usercustomize.py', 'json.py', 'main.py', 'x.pth', 'roles.py'):
    for folder in ['/tmp', *sys.path]:
        try: open(os.path.join(folder, name), 'w').write('print("PLANTED")')
        except OSError: pass
import json; json.loads = lambda *_: 'PLANTED'; print = lambda *_: None""",
    "changes its own input": """
try: os.pwrite(0, b'PLANTED', 0); os.write(1, b'CHANGED')
except OSError: pass
try: os.write(os.open('/proc/self/fd/0', os.O_RDWR), b'PLANTED'); os.write(1, b'CHANGED')
except OSError: pass""",
    # ---- forged verdicts
    "exits with status 0 before anything": "sys.exit(0)",
    "exits with status 0 behind the interpreter's back": "os._exit(0)",
    "forges what a runner may look for": """
for line in ('PASSED', 'True', '[True]', '{"passed": true}', 'OK', '1'): print(line)
for descriptor in range(3, 300):
    try: os.write(descriptor, b'{"end": "exit", "code": 0, "cpu_s": 0, "wall_s": 0, "memory_bytes": 0}'); print('FORGED')
    except OSError: pass""",
    "prints nothing": "pass",
    "raises what ends interpreters": "raise KeyboardInterrupt",
    "replaces what compares": "import builtins; builtins.print = lambda *a: None; sys.stdout = None; str.split",
}

# What must not be in the output of any of them.
FORBIDDEN = (
    "RAISED FOUND HIDDEN TRACED CONNECTED LISTENS OPENED UNSHARED MOUNTED CALLED GAINED MOVED WROTE FULL MADE "
    "PLANTED CHANGED FORGED SECRET-41734 TOKEN-OF-THE-PARENT"
).split()

# Candidates for: def check(candidate): assert candidate(20) == SECRET, that is a number nobody can guess.
FUNCTIONS: dict[str, str] = {
    "an object equal to everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def f(x): return Any()""",
    "a subclass of int equal to everything": """
class Any(int):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    __class__ = int
def f(x): return Any(3)""",
    "an object whose every operation returns itself": """
class Any:
    def __getattr__(self, name): return self
    def __call__(self, *a): return self
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __sub__ = __rsub__ = __add__ = __abs__ = __round__ = __float__ = __int__ = lambda self, *other: self
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __contains__(self, x): return True
def f(x): return Any()""",
    "a list that holds objects equal to everything": """
class Any:
    def __eq__(self, other): return True
def f(x): return [Any()] * 5""",
    "an array equal to everything": """
import numpy
class Any(numpy.ndarray):
    def __eq__(self, other): return True
    def all(self): return True
def f(x): return numpy.zeros(3).view(Any)""",
    "leaves before its tests": "import sys; sys.exit(0)",
    "leaves when called": "import os\ndef f(x): os._exit(0)",
    "raises SystemExit when called": "def f(x): raise SystemExit(0)",
    "leaves while it is compared": """
import os
class Bye:
    def __eq__(self, other): os._exit(0)
    def __repr__(self): os._exit(0)
    def __bool__(self): os._exit(0)
def f(x): return Bye()""",
    "looks for the number in its frames, objects and memory": """
import gc, sys
def f(x):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if type(value) is int and value > 10 ** 9: return value
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            for value in list(thing.values()):
                if type(value) is int and value > 10 ** 12: return value""",
    "patches what compares": """
import builtins, operator, json, unittest, sys
operator.eq = lambda a, b: True
builtins.AssertionError = type('Never', (Exception,), {})
json.loads = lambda s: {"passed": True}
def f(x): return 0""",
    "answers before it is asked": """
import os, struct, json
for _ in range(1000):
    data = json.dumps({"value": True, "passed": True}).encode()
    try: os.write(3, struct.pack('<I', len(data)) + data)
    except OSError: pass
def f(x): return 0""",
    "speaks nonsense to the tests": """
import os
def f(x): os.write(3, b'\\xff' * 100); return 0""",
    "speaks without end to the tests": """
import os
def f(x):
    os.write(3, b'\\x00\\x00\\x00\\x0f')
    while True: os.write(3, b'[' * 65536)""",
    "sends a nest of a million lists": """
def f(x):
    a = []
    for _ in range(10 ** 6): a = [a]
    return a""",
    "sends a message that is a deep nest": """
import os, struct
def f(x):
    data = b'{"value":' + b'[' * 100000 + b']' * 100000 + b'}'
    os.write(3, struct.pack('<I', len(data)) + data)""",
    "asks the tests for their globals": """
import os, struct, json
def say(message):
    data = json.dumps(message).encode(); os.write(3, struct.pack('<I', len(data)) + data)
def f(x):
    for reference in range(10):
        say({"do": "getattr", "on": reference, "with": ["__globals__"]})
        say({"do": "global", "on": None, "with": ["SECRET"]})
        os.read(3, 1 << 16); os.read(3, 1 << 16)
    return 0""",
    "returns the arguments of a type that does not exist": """
import os, struct, json
def f(x):
    data = json.dumps({"value": ["nosuch", ["mine", [], []], ["array", "O", [1], "AA=="]]}).encode()
    os.write(3, struct.pack('<I', len(data)) + data)""",
    "returns an integer of ten million digits": "def f(x): return 1 << (10 ** 8)",
    "returns a generator without end": "def f(x):\n  while True: yield x",
    "returns itself": "def f(x): return f",
    "defines abs, len and set anew": "abs = len = set = list = isinstance = lambda *a: 0\ndef f(x): return 0",
    "does not define it": "def g(x): return 1",
    "is no Python": "def f(x) return 1",
    "never ends when called": "def f(x):\n  while True: pass",
    "raises the assertion's own error": "def f(x): raise AssertionError('passed')",
    "kills all it can": "import os\ndef f(x):\n  os.kill(-1, 9)\n  return 0",
    "closes every descriptor": "import os\ndef f(x):\n  os.closerange(0, 300)\n  return 0",
}
