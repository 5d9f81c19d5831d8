package upstream

import (
	"slices"

	"sluice/gateway/wire"
	"sluice/store"
)

// codeSet is a set of status codes, a bit for each.
type codeSet uint32

func newCodeSet(names []store.Code) (set codeSet) {
	for code := range wire.Code(wire.NumCodes) {
		if slices.Contains(names, store.Code(code.String())) {
			set |= 1 << code
		}
	}
	return set
}

func (s codeSet) has(code uint32) bool { return code < wire.NumCodes && s&(1<<code) != 0 }

// Counts tells whether an answer with that status counts against its endpoint. It
// does so where ejection is turned off, too: success is shown in any case.
func (b *Backend) Counts(code uint32) bool { return b.counted.has(code) }

// countedBy are the codes that count against endpoints of a backend.
func countedBy(spec *store.BackendSpec) codeSet {
	if o := spec.OutlierDetection; o != nil && len(o.Codes) > 0 {
		return newCodeSet(o.Codes)
	}
	return newCodeSet(store.DefaultOutlierDetection().Codes)
}
