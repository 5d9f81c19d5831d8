package policy

import "sync/atomic"

// Concurrency bounds how much is open at once. The zero value allows nothing.
type Concurrency struct {
	limit, open atomic.Int64
}

// NewConcurrency returns a bound.
func NewConcurrency(limit int) *Concurrency {
	c := new(Concurrency)
	c.SetLimit(limit)
	return c
}

// SetLimit takes effect at once. What is open stays.
func (c *Concurrency) SetLimit(limit int) { c.limit.Store(int64(limit)) }

// Acquire counts one more, if there is room for it.
func (c *Concurrency) Acquire() bool {
	for {
		open := c.open.Load()
		if open >= c.limit.Load() {
			return false
		}
		if c.open.CompareAndSwap(open, open+1) {
			return true
		}
	}
}

// Release is called once for each Acquire that was true.
func (c *Concurrency) Release() { c.open.Add(-1) }

// Open is how much is open.
func (c *Concurrency) Open() int { return int(c.open.Load()) }
