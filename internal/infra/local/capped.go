package local

import (
	"bytes"
	"os"
)

// logLimit is the size at which a process's log begins anew; one older part
// is kept beside it, so a log takes at most twice as much.
const logLimit = 1 << 20

// cappedLog is a log file of bounded size. It never fails: a process must not
// stop because its log cannot be written (a full disk), so what cannot be
// written is dropped.
type cappedLog struct {
	path  string
	limit int
	file  *os.File
	size  int
}

func (l *cappedLog) Write(p []byte) (int, error) {
	written := len(p)
	if l.file != nil && l.size+len(p) > l.limit {
		l.file.Close()
		l.file = nil
		_ = os.Rename(l.path, olderLog(l.path))
	}
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return written, nil
		}
		l.file, l.size = f, 0
	}
	n, _ := l.file.Write(p)
	l.size += n
	return written, nil
}

func (l *cappedLog) Close() {
	if l.file != nil {
		l.file.Close()
	}
}

func olderLog(path string) string { return path + ".1" }

// lastLines returns the last lines of a log, the older part included where
// the newer one is too short.
func lastLines(path string, lines int) string {
	if lines <= 0 {
		return ""
	}
	newer := lastBytes(path, 64<<10)
	if bytes.Count(newer, []byte("\n")) <= lines {
		newer = append(lastBytes(olderLog(path), 64<<10), newer...)
	}
	newer = bytes.TrimRight(newer, "\n")
	from := len(newer)
	for ; lines > 0 && from >= 0; lines-- {
		from = bytes.LastIndexByte(newer[:from], '\n')
	}
	return string(newer[from+1:])
}

func lastBytes(path string, n int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	buf := make([]byte, min(n, info.Size()))
	read, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	return buf[:read]
}
