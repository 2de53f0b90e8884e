package load

import "strconv"

// class is why a request (or an idle connection) failed: one of the constants
// below, or classStatus + status for a response whose status was not wanted.
type class uint16

// The classes of error, as they are named in LoadResult.Errors. A status that
// was not wanted is named status_503.
const (
	classRefused   class = iota // connection_refused: nobody listens
	classConnect                // connection_failed: no way to the target
	classLocal                  // no_local_port: this machine has no port or descriptor left
	classReset                  // connection_reset: the peer reset the connection
	classClosed                 // connection_closed: the peer closed it before any byte of the response
	classTruncated              // truncated_response: the peer closed it within the response
	classMalformed              // malformed_response: what came is not HTTP/1.x
	classExtra                  // extra_data: more came than the response
	classWrite                  // write_failed
	classRead                   // read_failed
	classStatus                 // + status
	classCount     = classStatus + 1000
)

var classNames = [classStatus]string{
	"connection_refused", "connection_failed", "no_local_port", "connection_reset", "connection_closed",
	"truncated_response", "malformed_response", "extra_data", "write_failed", "read_failed",
}

func (c class) String() string {
	if c < classStatus {
		return classNames[c]
	}
	return "status_" + strconv.Itoa(int(c-classStatus))
}

// append adds the name to b without allocating.
func (c class) append(b []byte) []byte {
	if c < classStatus {
		return append(b, classNames[c]...)
	}
	return strconv.AppendUint(append(b, "status_"...), uint64(c-classStatus), 10)
}
