//go:build unix

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes the lock, or returns false without an error if another has it.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, err
		}
	}
}

// openLock opens the file without ever following a link, and makes it for
// everybody if it is not there: other users take the same lock. In a
// directory that everybody may write to, opening another's file with O_CREATE
// is refused on many machines (fs.protected_regular), so it is made and
// opened in two steps.
func openLock(path string) (*os.File, error) {
	const flags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	for range 10 {
		f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
		if errors.Is(err, fs.ErrPermission) {
			f, err = os.OpenFile(path, os.O_RDONLY|flags, 0) // enough to lock
		}
		if err == nil {
			info, err := f.Stat()
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s is no regular file", path)
			}
			if err != nil {
				f.Close()
				return nil, err
			}
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|flags, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue // another was faster
		}
		if err != nil {
			return nil, err
		}
		if err := f.Chmod(0o666); err != nil { // whatever the umask
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return nil, fmt.Errorf("%s appears and disappears", path)
}
