package disk

import (
	"errors"
	"fmt"
	"time"
)

// lockPause is the time between two attempts, in which a process that is on its
// way out may let go.
const lockPause = 20 * time.Millisecond

// errHeld is what one attempt to lock returns while another process has the lock.
var errHeld = errors.New("held by another process")

// lock takes the lock of dir, and waits for it no longer than wait. What it returns
// lets go of it. The kernel lets go when the process ends, however it ends.
func lock(dir string, wait time.Duration) (unlock func() error, err error) {
	deadline := time.Now().Add(wait)
	for {
		unlock, err := tryLock(dir)
		if !errors.Is(err, errHeld) {
			return unlock, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("it is in use by %s, waited %v; end that process, or choose another directory", holder(dir), wait)
		}
		pause := time.NewTimer(lockPause)
		<-pause.C
	}
}
