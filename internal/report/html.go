package report

import (
	"github.com/meshbench/meshbench"
	"io"
)

// HTML x.
func HTML(w io.Writer, r meshbench.Result) error { _, err := w.Write([]byte(r.Headline)); return err }
