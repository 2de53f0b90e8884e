package load

import "syscall"

// busy tells whether a window is leaving.
func (s *sender) busy() bool { return s.w != nil || len(s.out) > 0 }

// step encodes or writes a piece, and returns how many bytes that was; 0 where
// the reader is not ready.
func (s *sender) step(fd int) (int, syscall.Errno) {
	if s.w != nil && len(s.out) < stepBytes {
		before := len(s.out)
		s.encode()
		return len(s.out) - before + 1, 0
	}
	n, errno := rawWrite(fd, s.out)
	if errno != 0 || n <= 0 {
		return 0, errno
	}
	s.out = s.out[:copy(s.out, s.out[n:])]
	return n, 0
}
