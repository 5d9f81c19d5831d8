package upstream

import "sluice/store"

// Limits are what the backend may have at once; nil sets none.
func (b *Backend) Limits() *store.BackendLimits {
	if b.spec == nil {
		return nil
	}
	return b.spec.Spec.Limits
}
