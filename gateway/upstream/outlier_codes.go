package upstream

import (
	"sluice/gateway/wire"
	"sluice/store"
)

// Counts tells whether an answer with that status counts against its endpoint. It
// does so where ejection is turned off, too: success is shown in any case.
func (b *Backend) Counts(code wire.Code) bool { return b.counted.Has(code) }

// countedBy are the codes that count against endpoints of a backend.
func countedBy(spec *store.BackendSpec) wire.CodeSet {
	if o := spec.OutlierDetection; o != nil && len(o.Codes) > 0 {
		return wire.CodesNamed(o.Codes)
	}
	return wire.CodesNamed(store.DefaultOutlierDetection().Codes)
}
