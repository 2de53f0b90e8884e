package load

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls between two requests do not tell Go's scheduler
// (RawSyscall): telling it costs a sixth of a request. That is safe only for
// calls that cannot block, or not for long: every socket is non-blocking and
// the one waiting call is bounded by maxWait.

// maxWait bounds one wait in the kernel: for so long a garbage collection
// that wants to stop the world may have to wait.
const maxWait = 10 * time.Millisecond

func rawSend(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func rawReceive(fd int32, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func rawClose(fd int32) { syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// event is a struct epoll_event whose data is the slot and its generation.
type event = unix.EpollEvent

// rawPoll waits at most nanos (0: not at all) for events.
func rawPoll(epoll int, events []event, nanos int64) (int, syscall.Errno) {
	wait := unix.NsecToTimespec(min(nanos, int64(maxWait)))
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)),
		uintptr(unsafe.Pointer(&wait)), 0, 0)
	if errno == unix.ENOSYS { // before Linux 5.11: whole milliseconds, rounded down
		n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)),
			uintptr(wait.Nano()/1e6), 0, 0)
	}
	return int(n), errno
}

// rawRegister adds a socket to an epoll, edge-triggered for reading and
// writing; rawRearm makes it report again what it has reported already.
func rawRegister(epoll int, fd int32, data uint64) syscall.Errno {
	return rawControl(epoll, unix.EPOLL_CTL_ADD, fd, data)
}

func rawRearm(epoll int, fd int32, data uint64) syscall.Errno {
	return rawControl(epoll, unix.EPOLL_CTL_MOD, fd, data)
}

func rawControl(epoll, op int, fd int32, data uint64) syscall.Errno {
	e := event{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32))}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// rawWrite writes at most stepBytes to a pipe or socket that can take them
// now. It returns 0 where it cannot.
func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT}
	var zero unix.Timespec
	ready, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	if errno != 0 || ready == 0 {
		if errno == unix.EINTR {
			errno = 0
		}
		return 0, errno
	}
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(min(len(b), stepBytes)))
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return 0, 0
	}
	return int(n), errno
}

// waitWritable waits, telling the scheduler, until a descriptor can be
// written to or the time is over.
func waitWritable(fd int, d time.Duration) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(p, int(d.Milliseconds()))
}

// rawSocket opens a non-blocking socket for an address.
func rawSocket(address []byte) (int32, syscall.Errno) {
	domain := unix.AF_INET
	if len(address) == unix.SizeofSockaddrInet6 {
		domain = unix.AF_INET6
	}
	r, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(domain), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	fd := int32(r)
	one := int32(1)
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, uintptr(unsafe.Pointer(&one)), 4, 0)
	return fd, 0
}

// sockaddr returns the struct sockaddr_in or sockaddr_in6 of an address.
func sockaddr(a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], a.Port())
		v4 := ip.As4()
		copy(b[4:], v4[:])
		return b
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	v6 := ip.As16()
	copy(b[8:], v6[:])
	if zone := ip.Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			binary.NativeEndian.PutUint32(b[24:], uint32(i.Index))
		}
	}
	return b
}

// rawConnect begins to connect to a struct sockaddr.
func rawConnect(fd int32, address []byte) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(address))), uintptr(len(address)))
	return errno
}

// rawSocketError returns, and clears, what became of a connection attempt.
func rawSocketError(fd int32) syscall.Errno {
	var value int32
	size := uint32(4)
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return syscall.Errno(value)
}

// threadCPU returns the CPU time of the calling thread in nanoseconds.
func threadCPU() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}

// processCPU returns the CPU time of this process in nanoseconds.
func processCPU() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}

// involuntarySwitches returns how often the calling thread was made to leave
// its CPU.
func involuntarySwitches() uint64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return uint64(u.Nivcsw)
}

// blockPreemption keeps Go's preemption signal from the calling thread, or
// lets it through again.
func blockPreemption(block bool) {
	set := uint64(1) << (unix.SIGURG - 1)
	how := uintptr(unix.SIG_UNBLOCK)
	if block {
		how = unix.SIG_BLOCK
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
}

// exactTimers makes waits end when they should and not up to 50 us later.
func exactTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// readSmall reads a file of /proc or /sys; empty where it cannot be read.
func readSmall(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}
