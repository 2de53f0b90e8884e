package load

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// readsAtATime bounds what one connection may take before the others, and the
// arrivals, have their turn.
const readsAtATime = 16

// dispatch gives a request to a connection: one that is open and free, else
// one that is being set up, else one that is set up for it. It reports false
// where there is none.
func (l *loop) dispatch(intended, taken int64, counted bool) bool {
	var i int32
	switch {
	case l.idle.n > 0:
		i = l.idle.first
		l.idle.remove(l.slots, i)
	case l.opening.n > 0:
		i = l.opening.first
		l.opening.remove(l.slots, i)
	case l.down.n > 0:
		i = l.down.first
		l.down.remove(l.slots, i)
	default:
		return false
	}
	l.begin(i, intended, taken, counted)
	return true
}

// begin puts a request on a slot that is in no list.
func (l *loop) begin(i int32, intended, taken int64, counted bool) {
	s := &l.slots[i]
	s.bound, s.counted = true, counted
	s.intended, s.taken = intended, taken
	s.sent, s.received = 0, 0
	s.response.reset(l.head)
	l.busy.push(l.slots, i)
	if l.closed && counted {
		l.window.planned++
	}
	switch s.state {
	case slotOpen:
		l.send(i)
	case slotDown:
		if c, ok := l.connect(i); !ok {
			l.fail(i, c)
		}
	}
}

// connect begins to set up a connection.
func (l *loop) connect(i int32) (class, bool) {
	s := &l.slots[i]
	s.connectFrom, s.served = l.now, false
	fd, errno := rawSocket(l.address)
	if errno != 0 {
		return classLocal, false
	}
	s.fd = fd
	s.state = slotConnecting
	s.gen++
	if errno = rawConnect(fd, l.address); errno != 0 && errno != unix.EINPROGRESS {
		return connectClass(errno), false
	}
	if errno = rawRegister(l.epoll, fd, uint64(s.gen)<<32|uint64(uint32(i))); errno != 0 {
		return classLocal, false
	}
	return 0, true
}

func connectClass(errno syscall.Errno) class {
	switch errno {
	case unix.ECONNREFUSED:
		return classRefused
	case unix.ECONNRESET:
		return classReset
	case unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.ENOBUFS, unix.ENOMEM:
		return classLocal
	}
	return classConnect
}

// handle looks after one event.
func (l *loop) handle(e *event) {
	i := e.Fd
	s := &l.slots[i]
	if s.state == slotDown || s.gen != uint32(e.Pad) {
		return // of a connection that was given up within this batch
	}
	if s.state == slotConnecting {
		if e.Events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 {
			return
		}
		if errno := rawSocketError(s.fd); errno != 0 {
			l.lose(i, connectClass(errno))
			return
		}
		s.state, s.connected = slotOpen, l.clock()
		l.window.record(chConnect, s.connected-s.connectFrom)
		if s.bound {
			l.send(i)
		} else {
			l.opening.remove(l.slots, i)
			l.idle.push(l.slots, i)
		}
	} else if e.Events&unix.EPOLLOUT != 0 && s.bound && s.sent < len(l.request) {
		l.clock()
		l.send(i)
	}
	if s.state == slotOpen && s.gen == uint32(e.Pad) && e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.receive(i, e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// send writes what is left of the request.
func (l *loop) send(i int32) {
	s := &l.slots[i]
	for s.sent < len(l.request) {
		n, errno := rawSend(s.fd, l.request[s.sent:])
		switch errno {
		case 0:
		case unix.EAGAIN:
			return // an event will tell
		case unix.EINTR:
			continue
		case unix.EPIPE:
			l.fail(i, classClosed)
			return
		case unix.ECONNRESET:
			l.fail(i, classReset)
			return
		default:
			l.fail(i, classWrite)
			return
		}
		if s.sent == 0 {
			l.wrote(s)
		}
		s.sent += n
		if s.counted {
			l.window.bytesWritten += uint64(n)
		}
	}
}

// wrote notes the first byte of a request: it was written after l.now, the
// last reading of the clock before the call.
func (l *loop) wrote(s *slot) {
	s.firstByte = l.now
	l.window.sent++
	if !s.counted {
		return
	}
	wait := s.firstByte - s.taken
	if s.connected > s.taken { // set up, at least in part, while this request waited
		wait -= s.connected - max(s.connectFrom, s.taken)
	}
	l.window.record(chWait, max(wait, 0))
}

// receive reads what has come. hangup: the peer has closed its side.
func (l *loop) receive(i int32, hangup bool) {
	s := &l.slots[i]
	gen := s.gen
	for range readsAtATime {
		n, errno := rawReceive(s.fd, l.buffer[:])
		l.clock()
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno == unix.ECONNRESET || errno == unix.EPIPE:
			l.lose(i, classReset)
			return
		case errno != 0:
			l.lose(i, classRead)
			return
		case n == 0:
			l.ended(i)
			return
		case !s.bound:
			l.window.fail(ofConnection, classExtra)
			l.lose(i, classExtra)
			return
		}
		s.received += int64(n)
		used, ok := s.response.read(l.buffer[:n])
		switch {
		case !ok:
			l.fail(i, classMalformed)
			return
		case s.response.state == responseDone && used < n:
			l.fail(i, classExtra)
			return
		case s.response.state == responseDone:
			l.complete(i, hangup)
			if s.gen != gen || s.state != slotOpen {
				return
			}
		}
		if n < receiveSize && !hangup {
			return
		}
	}
	rawRearm(l.epoll, s.fd, uint64(s.gen)<<32|uint64(uint32(i)))
}

// ended looks after a connection that the peer has closed in order.
func (l *loop) ended(i int32) {
	s := &l.slots[i]
	switch {
	case !s.bound:
		l.lose(i, classClosed)
	case s.response.end():
		l.complete(i, true)
	case s.response.started():
		l.fail(i, classTruncated)
	default:
		l.fail(i, classClosed)
	}
}

// lose gives up a connection, and the request on it if there is one.
func (l *loop) lose(i int32, c class) {
	s := &l.slots[i]
	switch {
	case s.bound:
		l.fail(i, c)
		return
	case s.state == slotConnecting:
		l.opening.remove(l.slots, i)
	default:
		l.idle.remove(l.slots, i)
	}
	l.drop(i)
}

// complete counts a whole response and reuses its connection, or closes it:
// where either side wants that, or the peer has done so already.
func (l *loop) complete(i int32, hangup bool) {
	s := &l.slots[i]
	s.bound, s.served, s.fails = false, true, 0
	l.busy.remove(l.slots, i)
	if s.counted {
		w := l.window
		w.bytesRead += uint64(s.received)
		w.last = l.now - l.warm
		if status := s.response.status; status < len(l.want) && l.want[status] {
			w.completed++
			w.record(chService, l.now-s.firstByte)
			w.record(chResponse, l.now-s.intended)
		} else {
			w.errored++
			w.fail(ofRequest, classStatus+class(status))
			w.record(chErrorResponse, l.now-s.intended)
		}
	}
	if !l.job.KeepAlive || hangup || !s.response.reusable() || s.sent < len(l.request) {
		l.drop(i)
		return
	}
	if l.closed && l.now < l.end {
		l.begin(i, l.now, l.now, l.now >= l.warm)
		return
	}
	l.idle.push(l.slots, i)
	if l.backlog > 0 {
		l.shift()
	}
}

// fail counts a request that ended without its response.
func (l *loop) fail(i int32, c class) {
	s := &l.slots[i]
	s.bound = false
	l.busy.remove(l.slots, i)
	if s.counted {
		w := l.window
		w.bytesRead += uint64(s.received)
		w.last = l.now - l.warm
		w.errored++
		w.fail(ofRequest, c)
		w.record(chErrorResponse, l.now-s.intended)
	}
	l.drop(i)
}

// drop closes the connection of a slot that is in no list. A connection that
// has served is opened again at once, for nobody yet; any other waits for a
// request that needs it, and in a closed loop for its backoff.
func (l *loop) drop(i int32) {
	s := &l.slots[i]
	if s.state != slotDown {
		rawClose(s.fd)
		s.state = slotDown
	}
	s.retryAt = 0
	switch {
	case s.served && l.job.KeepAlive && l.now < l.end:
		if _, ok := l.connect(i); ok {
			l.opening.push(l.slots, i)
			return
		}
		if s.state != slotDown {
			rawClose(s.fd)
			s.state = slotDown
		}
	case s.served:
		l.retryCheck = 0
	case l.closed:
		s.retryAt = l.now + min(backoffFirst<<s.fails, backoffMost)
		s.fails = min(s.fails+1, 7)
	}
	l.down.push(l.slots, i)
}
