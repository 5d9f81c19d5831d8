package observe

import (
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluice/gateway/wire"
)

// Key names a series: a route and one of the backends that it splits to, each as
// "namespace/name".
type Key struct{ Route, Backend string }

const cacheLine = 64 // bytes; see doc.go

// Series counts the RPCs of one route to one backend. Its methods may be called
// from any goroutine; they take no lock and allocate nothing.
type Series struct {
	// Fixed at construction.
	key    Key
	labels labels
	made   *timestamppb.Timestamp
	cells  []atomic.Uint64 // durations, by cell; their total is the number of RPCs that ended

	// Guarded by Metrics.mu.
	retired bool   // no table has it any more
	seen    uint64 // RPCs that had started when it was last looked at

	_       [cacheLine]byte
	started atomic.Uint64
	_       [cacheLine - 8]byte

	// Written together, so on one line as far as the codes that are common.
	micros atomic.Uint64 // microseconds that the ended RPCs took: as many as 10,000 streams take in 58,000 years
	ended  [wire.NumCodes]atomic.Uint64
	_      [cacheLine - 8]byte
}

// labels are a series' labels as the exporter wants them, in alphabetical order.
type labels struct {
	plain []*dto.LabelPair
	coded [wire.NumCodes][]*dto.LabelPair
}

func newSeries(key Key) *Series {
	s := &Series{key: key, made: timestamppb.Now(), cells: make([]atomic.Uint64, len(cells))}
	backend, route := label("backend", key.Backend), label("route", key.Route)
	s.labels.plain = []*dto.LabelPair{backend, route}
	for code := range s.labels.coded {
		s.labels.coded[code] = []*dto.LabelPair{backend, codeLabels[code], route}
	}
	return s
}

// codeLabels are shared by all series.
var codeLabels = func() (all [wire.NumCodes]*dto.LabelPair) {
	for code := range all {
		all[code] = label("code", wire.Code(code).Label())
	}
	return all
}()

func label(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: proto.String(name), Value: proto.String(value)}
}

// Key is what the series counts.
func (s *Series) Key() Key { return s.key }

// Start counts an RPC that has begun; it has to End.
func (s *Series) Start() { s.started.Add(1) }

// End counts an RPC that is over, with its code and the time since it started. A
// code that gRPC does not define is counted as UNKNOWN.
func (s *Series) End(code wire.Code, d time.Duration) {
	d = max(d, 0)
	s.cells[cellOf(d)].Add(1)
	s.micros.Add(uint64(d+time.Microsecond/2) / uint64(time.Microsecond))
	s.ended[code.Clamp()].Add(1)
}

// Started is how many RPCs have begun.
func (s *Series) Started() uint64 { return s.started.Load() }

// Ended is how many RPCs have ended with code.
func (s *Series) Ended(code wire.Code) uint64 { return s.ended[code.Clamp()].Load() }

// Open is how many RPCs have begun and not ended.
func (s *Series) Open() uint64 {
	started, ended := s.tally()
	return started - ended.total()
}

// endings is a count of RPCs by code.
type endings [wire.NumCodes]uint64

func (e *endings) total() (n uint64) {
	for _, of := range e {
		n += of
	}
	return n
}

// tally reads what has started and what has ended as of one moment: none ended
// while the started were read. On a series that is never still for that long it
// gives up, and what has started meanwhile looks open; never the other way, for an
// RPC starts before it ends.
func (s *Series) tally() (started uint64, ended endings) {
	const tries = 16
	for range tries {
		ended = s.endings()
		started = s.started.Load()
		if s.endings() == ended {
			break
		}
	}
	return started, ended
}

func (s *Series) endings() (ended endings) {
	for code := range s.ended {
		ended[code] = s.ended[code].Load()
	}
	return ended
}
