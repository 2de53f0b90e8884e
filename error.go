package meshbench

import (
	"errors"
	"fmt"
)

// Code is the class of an Error. There is one mapping from codes to exit
// codes (package cli).
type Code string

// The codes an Error can have.
const (
	Invalid         Code = "invalid"         // the input is wrong; nothing was done
	NotFound        Code = "not_found"       // what was named does not exist
	Conflict        Code = "conflict"        // somebody else holds what is needed
	Unauthenticated Code = "unauthenticated" // sign in first
	Forbidden       Code = "forbidden"       // a policy refuses it
	Unavailable     Code = "unavailable"     // something needed cannot be had now
	Internal        Code = "internal"        // a fault of Meshbench
)

// Error says what happened, to what, and what to do next.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Err     error  `json:"-"` // the cause, if any
}

// Errorf makes an Error without a hint. A %w verb becomes the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e that says what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Error returns the message alone; surfaces print the hint on its own line.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError returns err as an Error: itself if it is or wraps one (the outer
// message is kept), else one of code Internal.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: Internal, Message: err.Error(), Err: err}
	}
	if e.Message == err.Error() {
		return e
	}
	return &Error{Code: e.Code, Message: err.Error(), Hint: e.Hint, Err: err}
}
