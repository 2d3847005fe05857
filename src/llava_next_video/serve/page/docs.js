// The routes and their fields, drawn from openapi.json without anything from elsewhere.

const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

const named = (schema) => schema.$ref?.split("/").pop();
const kind = (schema) =>
  named(schema) ??
  (schema.anyOf ?? schema.oneOf)?.filter((one) => one.type !== "null").map(kind).join(" | ") ??
  (schema.const !== undefined ? JSON.stringify(schema.const) : undefined) ??
  schema.enum?.map((one) => JSON.stringify(one)).join(" | ") ??
  (schema.type === "array" ? `[${kind(schema.items ?? {})}]` : schema.type ?? "anything");

const fields = (schema) =>
  make("ul", "", ...Object.entries(schema.properties ?? {}).map(([name, one]) => {
    const must = schema.required?.includes(name) ? " (required)" : "";
    return make("li", "", make("code", name), `: ${kind(one)}${must} ${one.description ?? ""}`);
  }));

const told = await (await fetch("openapi.json")).json();
const schemas = told.components?.schemas ?? {};
const routes = Object.entries(told.paths).flatMap(([path, verbs]) =>
  Object.entries(verbs).map(([verb, route]) => {
    const body = route.requestBody?.content?.["application/json"]?.schema;
    const section = make("section", "", make("h2", `${verb.toUpperCase()} ${path}`), make("p", route.description));
    if (body) section.append(fields(schemas[named(body)] ?? body));
    return section;
  }));
const parts = Object.entries(schemas)
  .filter(([name]) => !/Error|Request$/.test(name))
  .map(([name, schema]) => make("section", "", make("h2", name), make("p", schema.description), fields(schema)));
document.getElementById("routes").append(...routes, ...parts);
