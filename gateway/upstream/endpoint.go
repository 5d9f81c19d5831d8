package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
)

const (
	// defaultMaxConns bounds the connections to one endpoint. With 100 streams on
	// each, as many servers allow, that is 25,600 RPCs at once.
	defaultMaxConns = 256
	// maxWaiting bounds the streams that wait for a connection to one endpoint: 40
	// clients with all of their 100 streams, who arrive before the first dial is done.
	maxWaiting = 4000
)

// Why an endpoint could not take a stream. In each case the stream never left.
var (
	ErrConnecting = errors.New("no connection yet")
	ErrDown       = errors.New("endpoint cannot be reached")
	ErrFull       = errors.New("every connection is at its limit of streams")
	ErrRetired    = errors.New("endpoint was removed")
	ErrCrowded    = fmt.Errorf("more than %d streams wait for a connection", maxWaiting)
)

// Endpoint is one address of a backend and the connections to it.
type Endpoint struct {
	balance.Node
	tally tally

	pool *Pool
	id   identity
	http *http1 // nil when the endpoint speaks HTTP/2

	live  atomic.Pointer[[]*h2.Conn] // those that take streams; replaced whole
	group atomic.Pointer[group]      // nil before the first Commit
	timed atomic.Bool                // whoever picks wants to know how long answers take
	rated rated                      // guarded by the group

	mu       sync.Mutex // guards the fields below
	settings settings
	conns    []*h2.Conn // live, and draining ones
	dialling int        // goroutines at it
	down     error      // the last dial's, until one succeeds
	perConn  int        // streams that the last connection could take
	upSince  time.Time  // of the last connection
	answered uint64     // RPCs of the endpoint by then that ended well
	flaps    int        // times in a row that it did not live to be steady
	spent    bool       // the last of them had RPCs
	missed   bool       // a dial has failed since then
	parted   time.Time  // when the last one let go of us gently
	unprobed bool       // the backend has complained of pings
	left     time.Time  // when the table forgot the endpoint; zero while it has it
	retired  bool
	waiters  []Waiter
	hurry    chan struct{} // ends the pause between two dials; nil unless there is one
	state    string        // as last noted
	why      string        // it is in that state
	since    time.Time     // it is in that state
	samples  samples       // of the last minute
	ejection ejection
	health   health
	relief   relief
	hushed   bool      // some connection is silent
	ill      bool      // as peers are told
	hinted   time.Time // when it was last checked because a peer said so
	risen    time.Time // since when slow start goes on; zero while it does not

	ctx    context.Context // of the dials; nil before the first, ends when the endpoint retires
	cancel context.CancelFunc

	dials, failures   atomic.Int64
	passed, failed    atomic.Int64 // health checks
	ejections, spared atomic.Int64 // how often its RPCs took it out of the choice, and how often too many were
}

func newEndpoint(p *Pool, id identity) *Endpoint {
	e := &Endpoint{pool: p, id: id, perConn: streamsGuess, state: StateNew, since: time.Now()}
	e.live.Store(new([]*h2.Conn))
	if id.http1 {
		e.http = new(http1)
	}
	return e
}

// Address returns host:port.
func (e *Endpoint) Address() string { return e.id.address }

// Backend returns the key of the backend that the endpoint belongs to.
func (e *Endpoint) Backend() string { return e.id.backend }

// Connections returns how many connections take streams now, or are open when each
// takes one request at a time.
func (e *Endpoint) Connections() int {
	if e.http != nil {
		return int(e.http.open.Load())
	}
	return len(*e.live.Load())
}

// Dials returns how often a connection was tried, and how often in vain.
func (e *Endpoint) Dials() (tried, failed int64) { return e.dials.Load(), e.failures.Load() }

// Checks returns how many health checks it has passed, and how many not.
func (e *Endpoint) Checks() (passed, failed int64) { return e.passed.Load(), e.failed.Load() }

// Ejections returns how often it was ejected, and how often it was not because too many
// were.
func (e *Endpoint) Ejections() (ejected, spared int64) { return e.ejections.Load(), e.spared.Load() }

// whyDown is why the endpoint is not worth trying, nil when it is.
func (e *Endpoint) whyDown() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if state, why := e.judge(time.Now()); e.down == nil && !e.Usable() {
		return errors.New(state + ": " + why)
	}
	return e.down
}

// adopt puts settings in force.
func (e *Endpoint) adopt(s settings) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settings = s
	e.SetWeight(s.weight)
	if s.slowStart == nil {
		e.risen = time.Time{}
		e.SetScale(1)
	}
	if e.http != nil {
		e.adoptHTTP1(s)
	}
	e.attend(s.check)
	if e.left.IsZero() {
		return
	}
	e.left = time.Time{}
	if e.dialling == 0 { // nobody would find out that it is back
		e.down = nil
		e.mark(balance.Down, false)
	}
}

// leave notes that no table mentions the endpoint any more.
func (e *Endpoint) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left.IsZero() {
		e.left = time.Now()
		e.attend(nil)
	}
}

// unwanted reports whether the endpoint has left for so long that no RPC can be on
// its way to it.
func (e *Endpoint) unwanted(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiters) > 0 && !e.left.IsZero() {
		e.left = now
	}
	return !e.left.IsZero() && now.Sub(e.left) >= linger
}

// retire ends an endpoint that no table mentions any more: no new streams, no
// further dial, and each connection closes when its last stream has ended.
func (e *Endpoint) retire() {
	e.mu.Lock()
	e.retired = true
	e.attend(nil)
	if e.cancel != nil {
		e.cancel()
	}
	conns := append([]*h2.Conn(nil), e.conns...)
	e.setLive(nil)
	e.mu.Unlock()
	if e.http != nil {
		if t := e.http.transport.Load(); t != nil {
			t.CloseIdleConnections()
		}
	}
	var b h2.Batch
	for _, c := range conns {
		c.Drain(&b)
	}
	b.Flush()
}
