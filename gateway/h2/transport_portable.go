//go:build !linux

package h2

import "time"

// transportPoll is empty where the descriptor is left alone: reads block there
// with their buffer in hand, and writes are copied for the writer.
type transportPoll struct{}

func (t *Transport) preparePoll() {}

func (t *Transport) setUserTimeout(time.Duration) error { return nil }

func (t *Transport) fillPolled(*readBuffer) error          { panic("BUG: no descriptor") }
func (t *Transport) readPolled([]byte) (int, error)        { panic("BUG: no descriptor") }
func (t *Transport) readSealed([]byte) (int, error)        { panic("BUG: no descriptor") }
func (t *Transport) flushPolled() (bool, error)            { panic("BUG: no descriptor") }
func (t *Transport) drainPolled() error                    { panic("BUG: no descriptor") }
func (t *Transport) writePolled([]byte) (int, bool, error) { panic("BUG: no descriptor") }
