package cluster

// hooks are what a membership calls, from goroutines of its own. None of them may block.
type hooks struct {
	// Received takes a message, which is good only until it returns.
	Received func(message []byte)
	// Broadcasts are messages that are due, as memberlist.TransmitLimitedQueue gives them.
	Broadcasts func(overhead, limit int) [][]byte
	// Changed says that another set of nodes lives.
	Changed func()
}
