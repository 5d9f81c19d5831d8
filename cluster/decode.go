package cluster

import (
	"runtime"
	"sync"
	"sync/atomic"

	clusterv1 "sluice/cluster/v1"
	"sluice/store"
)

// decoded is a row that came, as far as it is understood.
type decoded struct {
	object *store.Object
	err    error
}

// decodeRows reads rows, on as many cores as there are: a route takes a third of a
// millisecond, and a peer that joins brings thousands.
func decodeRows(rows []*clusterv1.Object) []decoded {
	const worthwhile = 16 // rows for a goroutine
	all := make([]decoded, len(rows))
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(rows); i = int(next.Add(1)) - 1 {
			all[i].object, all[i].err = store.DecodeForeign(objectID(rows[i]), rows[i].Row)
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(rows)/worthwhile+1) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return all
}
