package local

// Ended is a process that was left behind and has been ended.
type Ended struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	Exe  string `json:"exe,omitempty"`
}
