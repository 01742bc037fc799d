/* The small helper of launcher pods: static, no library, a few pages of memory. Linux on amd64.

   hold FIFO MARK         a containerDisk's sidecar: is there, so that its files can be opened through /proc, until the launcher ends
   stay FIFO MARK         the same, for all launchers to come
   inject SELF COPY FIFO  an init container: puts this program into the pod's volume, and makes the FIFO beside it
   log FIFO SECONDS       the console's sidecar: waits so long for the FIFO, then copies it to standard output until its writer ends

   Numbers are those of the kernel's headers for amd64 (asm/unistd_64.h, asm-generic/fcntl.h, asm/signal.h). */

typedef unsigned long word;

enum { READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, SIGACTION = 13, NANOSLEEP = 35, EXIT = 60, MKNOD = 133 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_TRUNC = 01000, O_NOFOLLOW = 0400000 };
enum { EINTR = 4, EEXIST = 17, SIGTERM = 15, SA_RESTORER = 0x04000000, S_IFIFO = 0010000 };

static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long fourth __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

static void leave(int code)
{
	for (;;)
		call(EXIT, code, 0, 0, 0);
}

static void leave_well(void)
{
	leave(0);
}

/* What the kernel wants in rt_sigaction(2). The handler never returns, but the kernel insists on a way back. */
struct action {
	void (*handler)(void);
	word flags;
	void (*restorer)(void);
	word mask;
};

static void on_term(void (*handler)(void))
{
	struct action action = { handler, SA_RESTORER, leave_well, 0 };
	call(SIGACTION, SIGTERM, (long)&action, 0, sizeof action.mask);
}

static long open_file(const char *path, int flags, int mode)
{
	long file;
	do
		file = call(OPEN, (long)path, flags, mode, 0);
	while (file == -EINTR);
	return file;
}

/* All of a file into another, or into nothing (-1). 0, or the errno of what failed, below zero. */
static long copy(long from, long to)
{
	char buffer[4096];
	for (;;) {
		long got = call(READ, from, (long)buffer, sizeof buffer, 0);
		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got;
		for (long done = 0; to >= 0 && done < got;) {
			long put = call(WRITE, to, (long)(buffer + done), got - done, 0);
			if (put < 0 && put != -EINTR)
				return put;
			if (put > 0)
				done += put;
		}
	}
}

static void wait_a_second(void)
{
	long second[2] = { 1, 0 };
	call(NANOSLEEP, (long)second, 0, 0, 0);
}

static int hold(const char *fifo, int stays)
{
	on_term(leave_well);
	for (;;) {
		/* Opening waits for the launcher's start, reading for its end. */
		long pipe = open_file(fifo, O_RDONLY, 0);
		if (pipe < 0 || copy(pipe, -1) < 0)
			return 1;
		if (!stays)
			return 0;
		call(CLOSE, pipe, 0, 0, 0);
		wait_a_second();
	}
}

static int inject(const char *self, const char *target, const char *fifo)
{
	long from = open_file(self, O_RDONLY, 0);
	long to = open_file(target, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0755);
	if (from < 0 || to < 0 || copy(from, to) < 0 || call(CLOSE, to, 0, 0, 0) < 0)
		return 1;
	/* A pod's init containers may run again. */
	long made = call(MKNOD, (long)fifo, S_IFIFO | 0600, 0, 0);
	return made < 0 && made != -EEXIST;
}

static int log_console(const char *fifo, long seconds)
{
	/* SIGTERM is for the guest to shut down, and what it says then is worth keeping: so it is ignored here (SIG_IGN). */
	on_term((void (*)(void))1);
	long both;
	while ((both = call(OPEN, (long)fifo, O_RDWR, 0, 0)) < 0) {
		if (seconds-- <= 0)
			return 0;
		wait_a_second();
	}
	/* Opened in both directions first: opening for reading alone would wait for ever if the launcher has ended. */
	long pipe = open_file(fifo, O_RDONLY, 0);
	if (pipe < 0)
		return 1;
	call(CLOSE, both, 0, 0, 0);
	return copy(pipe, 1) < 0;
}

static long number(const char *text)
{
	long value = 0;
	while (*text >= '0' && *text <= '9')
		value = value * 10 + (*text++ - '0');
	return value;
}

void start(word *stack)
{
	word count = stack[0];
	const char **words = (const char **)(stack + 1);
	/* The first letter of the command is enough to tell them apart. */
	char command = count > 1 ? words[1][0] : 0;
	int code = 2;
	if ((command == 'h' || command == 's') && count == 4)
		code = hold(words[2], command == 's');
	else if (command == 'i' && count == 5)
		code = inject(words[2], words[3], words[4]);
	else if (command == 'l' && count == 4)
		code = log_console(words[2], number(words[3]));
	leave(code);
}

/* The stack as the kernel left it is start's argument; calls want it aligned. */
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call start\n hlt\n");
