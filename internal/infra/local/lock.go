package local

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
)

// holder is what the one who holds the lock writes into its file.
type holder struct {
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// String tells it to people.
func (h holder) String() string {
	if h.PID <= 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d, since %s", h.PID, h.Since.Local().Format("15:04:05"))
}

// parseHolder reads the file; nothing useful in it is nobody known.
func parseHolder(text []byte) holder {
	var h holder
	if json.Unmarshal(text, &h) != nil || h.PID <= 0 || h.Since.IsZero() {
		return holder{}
	}
	return h
}

func lockPath() string { return filepath.Join(os.TempDir(), "meshbench.lock") }

// Lock takes the machine for one run: two at once would disturb each other,
// whoever started them and wherever they keep their data. It is a lock of the
// system (flock(2)) on a file in the directory of temporary files, which gives
// it back when its holder dies.
//
// If another holds it, Lock waits when told to, having called onWait (if not
// nil) once with who that is; else it returns an error of code Conflict. The
// error is one of code Unavailable when ctx ends first.
func Lock(ctx context.Context, wait bool, onWait func(holder string)) (unlock func(), err error) {
	f, err := openLock(lockPath())
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "the machine's lock cannot be opened: %w", err).
			WithHint("it must be a regular file that everybody may read and write: %s", lockPath())
	}
	told := false
	for {
		ours, err := tryLock(f)
		if ours {
			break
		}
		if err != nil {
			f.Close()
			return nil, meshbench.Errorf(meshbench.Unavailable, "the machine's lock %s cannot be taken: %w", f.Name(), err)
		}
		who := readHolder(f)
		if !wait {
			f.Close()
			return nil, meshbench.Errorf(meshbench.Conflict, "another run is going on on this machine (%s)", who).
				WithHint("two runs at once would disturb each other: wait for it, or end it")
		}
		if !told && onWait != nil {
			onWait(who.String())
		}
		told = true
		select {
		case <-ctx.Done():
			f.Close()
			return nil, meshbench.Errorf(meshbench.Unavailable, "the machine was not free (%s): %w", who, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	text, err := json.Marshal(holder{PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second)})
	if err == nil && f.Truncate(0) == nil {
		_, _ = f.WriteAt(text, 0) // for information only; another's file may not be writable
	}
	return func() {
		_ = f.Truncate(0)
		f.Close() // gives the lock back
	}, nil
}

func readHolder(f *os.File) holder {
	buf := make([]byte, 256)
	n, _ := f.ReadAt(buf, 0)
	return parseHolder([]byte(strings.TrimRight(string(buf[:n]), "\x00")))
}
