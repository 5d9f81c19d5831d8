package admin

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// claimant is who wants to announce something, or to change or end what is announced.
type claimant struct {
	actor     string
	token     string // its ID; empty without one
	registrar bool   // may touch only what its own token announced
}

func claimantOf(ctx context.Context) claimant {
	id := IdentityFrom(ctx)
	return claimant{
		actor: id.Actor, token: strings.TrimPrefix(id.token, tokenPrefix),
		registrar: id.Role == adminv1.Role_ROLE_REGISTRAR,
	}
}

// may tells why a registration is not the claimant's to change, renew or end; nil when it
// is. Tokens of one name are different tokens.
func (c claimant) may(o *store.Object) error {
	if !c.registrar || c.token != "" && madeBy(o) == c.token {
		return nil
	}
	r, ok := o.Resource.(*store.Registration)
	if !ok {
		return nil
	}
	return refuse(connect.CodePermissionDenied,
		"%s has the role registrar, and somebody else registered %s at Backend %s/%s: only the token that did, or an operator, may change, renew or end that",
		c.actor, quoted(r.Spec.Address), o.ID.Namespace, r.Spec.Backend)
}

// madeBy is the ID of the token that announced a registration first; empty when none did.
func madeBy(o *store.Object) string {
	if r, ok := o.Resource.(*store.Registration); ok {
		return r.Spec.Token
	}
	return ""
}
