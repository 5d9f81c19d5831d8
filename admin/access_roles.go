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
	role  adminv1.Role // at least
	open  bool         // also for nobody: this is how one becomes somebody
	local bool         // only by the socket
}

var (
	anybody  = permission{open: true}
	viewer   = permission{role: adminv1.Role_ROLE_VIEWER}
	operator = permission{role: adminv1.Role_ROLE_OPERATOR}
	admin    = permission{role: adminv1.Role_ROLE_ADMIN}
	owner    = permission{role: adminv1.Role_ROLE_ADMIN, local: true}
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
	case c.Role < p.role:
		return connect.NewError(connect.CodePermissionDenied,
			fmt.Errorf("%s has the role %s; %s needs %s", c.Actor, roleName(c.Role), path.Base(procedure), roleName(p.role)))
	case p.local && !c.Local:
		return connect.NewError(connect.CodePermissionDenied,
			errors.New("this can only be done on the machine itself, with the command line"))
	}
	return nil
}
