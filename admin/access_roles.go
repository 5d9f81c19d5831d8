package admin

import (
	"errors"
	"fmt"
	"path"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// permission is what it takes to call a procedure.
type permission struct {
	role      adminv1.Role // at least
	open      bool         // also for nobody: this is how one becomes somebody
	local     bool         // only by the socket
	registrar bool         // also for the role registrar
}

var (
	anybody  = permission{open: true}
	viewer   = permission{role: adminv1.Role_ROLE_VIEWER}
	operator = permission{role: adminv1.Role_ROLE_OPERATOR}
	admin    = permission{role: adminv1.Role_ROLE_ADMIN}
	owner    = permission{role: adminv1.Role_ROLE_ADMIN, local: true}

	// registrar is for processes that announce themselves: they need not be trusted with
	// routes for that.
	registrar = permission{role: adminv1.Role_ROLE_OPERATOR, registrar: true}
)

// permissions is the one place that says who may do what. What is not in it nobody
// may; paths are compared whole.
var permissions = map[string]permission{
	adminv1.ResourceServiceGetProcedure:      viewer,
	adminv1.ResourceServiceListProcedure:     viewer,
	adminv1.ResourceServiceDiffProcedure:     viewer,
	adminv1.ResourceServiceWatchProcedure:    viewer,
	adminv1.ResourceServiceHistoryProcedure:  viewer,
	adminv1.ResourceServiceExplainProcedure:  viewer,
	adminv1.ResourceServiceApplyProcedure:    operator,
	adminv1.ResourceServiceDeleteProcedure:   operator,
	adminv1.ResourceServiceRollbackProcedure: operator,
	adminv1.ResourceServiceSplitProcedure:    operator,
	adminv1.ResourceServiceDrainProcedure:    operator,
	adminv1.ResourceServiceDisableProcedure:  operator,
	adminv1.ResourceServiceAdoptProcedure:    operator,

	adminv1.NodeServiceStatusProcedure:  viewer,
	adminv1.NodeServiceBackupProcedure:  admin,
	adminv1.NodeServiceRestoreProcedure: admin,

	adminv1.SchemaServiceListSchemasProcedure: viewer,
	adminv1.SchemaServiceListMethodsProcedure: viewer,
	adminv1.SchemaServiceGetOpenAPIProcedure:  viewer,

	adminv1.BackendServiceListEndpointsProcedure: viewer,
	adminv1.BackendServiceRegisterProcedure:      registrar,
	adminv1.BackendServiceRenewProcedure:         registrar,
	adminv1.BackendServiceDeregisterProcedure:    registrar,
	adminv1.BackendServiceKeepProcedure:          registrar,
	adminv1.BackendServiceRebalanceProcedure:     operator,

	adminv1.ClusterServiceListMembersProcedure:    viewer,
	adminv1.ClusterServiceListConflictsProcedure:  viewer,
	adminv1.ClusterServiceSettleConflictProcedure: operator,
	adminv1.ClusterServiceJoinProcedure:           admin,
	adminv1.ClusterServiceLeaveProcedure:          admin,
	adminv1.ClusterServiceDrainNodeProcedure:      admin,
	adminv1.ClusterServiceListKeysProcedure:       admin,
	adminv1.ClusterServiceAddKeyProcedure:         admin,
	adminv1.ClusterServiceUseKeyProcedure:         admin,
	adminv1.ClusterServiceRemoveKeyProcedure:      admin,

	adminv1.AccessServiceSignInProcedure:          anybody,
	adminv1.AccessServiceSignOutProcedure:         anybody,
	adminv1.AccessServiceWhoAmIProcedure:          anybody,
	adminv1.AccessServiceSetUpProcedure:           anybody,
	adminv1.AccessServiceCreateSetUpLinkProcedure: owner,
	adminv1.AccessServiceCreateAccountProcedure:   admin,
	adminv1.AccessServiceListAccountsProcedure:    admin,
	adminv1.AccessServiceUpdateAccountProcedure:   admin,
	adminv1.AccessServiceDeleteAccountProcedure:   admin,
	adminv1.AccessServiceCreateTokenProcedure:     admin,
	adminv1.AccessServiceListTokensProcedure:      admin,
	adminv1.AccessServiceRevokeTokenProcedure:     admin,
	adminv1.AccessServiceAuditProcedure:           admin,
}

// authorise tells why the caller may not call the procedure, or nil.
func authorise(c *caller, procedure string) error {
	p, listed := permissions[procedure]
	switch {
	case !listed || c == nil:
		return connect.NewError(connect.CodePermissionDenied, errors.New("nobody may call this"))
	case c.problem != nil && !p.open:
		return c.problem
	case p.open:
		return nil
	case c.Role == adminv1.Role_ROLE_UNSPECIFIED:
		return connect.NewError(connect.CodeUnauthenticated,
			errors.New("sign in, or send a token; on the machine itself the command line needs neither"))
	case !p.allows(c.Role):
		return connect.NewError(connect.CodePermissionDenied,
			fmt.Errorf("%s has the role %s; %s needs %s", c.Actor, roleName(c.Role), path.Base(procedure), p.roles()))
	case p.local && !c.Local:
		return connect.NewError(connect.CodePermissionDenied,
			errors.New("this can only be done on the machine itself, with the command line"))
	}
	return nil
}

// allows says whether a role suffices. The registrar stands beside the others, which
// are each more than the one before.
func (p permission) allows(role adminv1.Role) bool {
	if role == adminv1.Role_ROLE_REGISTRAR {
		return p.registrar
	}
	return role >= p.role
}

// noMoreThan is what is left of a token's role when the account that made it has
// another: who may not register can hand on no right to.
func noMoreThan(maker, role adminv1.Role) adminv1.Role {
	switch {
	case role != adminv1.Role_ROLE_REGISTRAR:
		return min(role, maker)
	case registrar.allows(maker):
		return role
	}
	return adminv1.Role_ROLE_UNSPECIFIED
}

// roles are the least that suffice, in words.
func (p permission) roles() string {
	if p.registrar {
		return roleName(p.role) + " or " + roleName(adminv1.Role_ROLE_REGISTRAR)
	}
	return roleName(p.role)
}
