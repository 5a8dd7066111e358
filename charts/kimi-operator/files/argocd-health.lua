-- Health of a KimiModel for Argo CD: resource.customizations.health.kimioperator.dev_KimiModel in argocd-cm.
-- Healthy: what the spec asks for answers. Progressing: on the way there. Degraded: a person must act.
-- Suspended: stopped on purpose.
local function find(conditions, kind)
  for _, condition in ipairs(conditions) do
    if condition.type == kind then
      return condition
    end
  end
  return {status = "Unknown", message = ""}
end

local status = obj.status
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "not looked at yet"}
end
if obj.metadata.generation ~= nil and status.observedGeneration ~= nil
    and status.observedGeneration < obj.metadata.generation then
  return {status = "Progressing", message = "an edit has not been looked at yet"}
end

local ready = find(status.conditions, "Ready")
local stalled = find(status.conditions, "Stalled")
local reconciling = find(status.conditions, "Reconciling")
if stalled.status == "True" then
  return {status = "Degraded", message = stalled.message}
end
if reconciling.status == "True" then
  return {status = "Progressing", message = status.progress or reconciling.message}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready.reason == "Suspended" or ready.reason == "ScaledToZero" then
  return {status = "Suspended", message = ready.message}
end
return {status = "Progressing", message = ready.message}
