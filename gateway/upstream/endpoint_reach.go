package upstream

import (
	"context"
	"fmt"
	"io"
	"time"

	"sluice/gateway/h2"
)

// reachable is how recently a connection has to have been heard, for an endpoint that takes
// no further one to count as reached.
const reachable = 10 * time.Second

// Reach finds out whether an address can be reached, in the way in which the backend's
// endpoint there is spoken to; one that no backend has by now, by TCP alone. It makes a
// connection and closes it: what is thought of the endpoint stays as it is.
func (p *Pool) Reach(ctx context.Context, backend, address string) bool {
	list := p.named(endpointName{backend, address})
	for _, e := range list {
		if e.reach(ctx) == nil || e.heardLately(time.Now()) {
			return true
		}
	}
	if len(list) > 0 {
		return false
	}
	nc, err := p.dial(ctx, address)
	if err == nil {
		nc.Close()
	}
	return err == nil
}

// reach makes a connection that nobody gets. It ends when ctx is done.
func (e *Endpoint) reach(ctx context.Context) error {
	e.mu.Lock()
	set := e.settings
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, set.timeout)
	defer cancel()
	if e.http != nil {
		nc, err := e.secure(ctx, set)
		if err == nil {
			nc.Close()
		}
		return err
	}
	t, err := e.transport(ctx, set)
	if err != nil {
		return err
	}
	return e.greet(ctx, t)
}

// greet waits for the peer's SETTINGS, and hangs up.
func (e *Endpoint) greet(ctx context.Context, t *h2.Transport) error {
	m := make(greeting, 1)
	ended := make(chan error, 1)
	e.mu.Lock()
	if e.retired || e.pool.ctx.Err() != nil { // the pool may not wait for what would begin now
		e.mu.Unlock()
		t.Close()
		return ErrRetired
	}
	e.pool.work.Go(func() { ended <- e.pool.eng.NewClient(t, m, 1).Run(e.pool.ctx) })
	e.mu.Unlock()
	defer t.Close()
	select {
	case <-m:
		return nil
	case err := <-ended:
		if err == nil {
			err = io.EOF
		}
		return fmt.Errorf("http/2 with %q: connection ended before SETTINGS: %w", e.id.address, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// heardLately tells whether a connection has something from the endpoint.
func (e *Endpoint) heardLately(now time.Time) bool {
	if e.http != nil {
		return e.Active() > 0 && e.whyDown() == nil
	}
	for _, c := range *e.live.Load() {
		if heard, _ := c.LastHeard(); !c.Silent() && now.Sub(heard) < reachable {
			return true
		}
	}
	return false
}

// greeting hears of a connection that nobody gets.
type greeting chan struct{}

// ConnReady tells that the peer speaks HTTP/2.
func (g greeting) ConnReady(*h2.Conn) {
	select {
	case g <- struct{}{}:
	default:
	}
}

// ConnDraining is of no interest.
func (g greeting) ConnDraining(*h2.Conn) {}

// ConnSilent is of no interest.
func (g greeting) ConnSilent(*h2.Conn) {}
